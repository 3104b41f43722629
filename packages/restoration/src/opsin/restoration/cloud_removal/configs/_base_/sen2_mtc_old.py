# 8-bit pictures with near infrared beside them; the truth has three bands.
task = "cloud_removal"
data_root = "data/sen2_mtc_old/"
train_pipeline = [
    dict(type="opsin.LoadPlace"),
    dict(type="opsin.ResizePlace", size=286),
    dict(type="opsin.RandomCropPair", size=256),
    dict(type="opsin.RandomFlipPlace"),
    dict(type="opsin.PackPlace"),
]
test_pipeline = [dict(type="opsin.LoadPlace"), dict(type="opsin.PackPlace")]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="opsin.Sen2MTCOld", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.Sen2MTCOld", data_root=data_root, split="val", pipeline=test_pipeline, test_mode=True
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.Sen2MTCOld", data_root=data_root, split="test", pipeline=test_pipeline, test_mode=True
    ),
)
val_evaluator = dict(type="opsin.CloudRemovalMetric")
test_evaluator = val_evaluator
