# Reflectances of four bands (opsin.restoration.cloud_removal.datasets.places), and how they are measured.
task = "cloud_removal"
data_root = "data/sen2_mtc_new/"
train_pipeline = [
    dict(type="opsin.LoadPlace"),
    dict(type="opsin.RandomSymmetry"),
    dict(type="opsin.PackPlace"),
]
test_pipeline = [dict(type="opsin.LoadPlace"), dict(type="opsin.PackPlace")]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="opsin.Sen2MTCNew", data_root=data_root, ann_file="train.txt", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.Sen2MTCNew",
        data_root=data_root,
        ann_file="val.txt",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.Sen2MTCNew",
        data_root=data_root,
        ann_file="test.txt",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="opsin.CloudRemovalMetric")
test_evaluator = val_evaluator
