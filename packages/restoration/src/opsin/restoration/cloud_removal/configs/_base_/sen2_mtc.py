# How places are loaded and measured, in either layout of opsin.restoration.cloud_removal.datasets.places.
task = "cloud_removal"
test_pipeline = [dict(type="opsin.LoadPlace"), dict(type="opsin.PackPlace")]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.CloudRemovalMetric")
test_evaluator = val_evaluator
