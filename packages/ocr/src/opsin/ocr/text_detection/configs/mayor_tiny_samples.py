# MAYOR small enough to learn the sample data in Total-Text's layout from scratch on a CPU in two minutes.
_base_ = ["opsin.detection::runtime_mmdet.py", "_base_/mayor_tiny.py", "_base_/text.py"]
task = "text_detection"
default_hooks = dict(checkpoint=dict(save_best="text/hmean", rule="greater"))
tiles = dict(size=512, overlap=192)

data_root = "data/text/"
dataset = dict(type="opsin.TotalText", data_root=data_root + "totaltext")
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadTextAnnotations"),
    dict(
        type="opsin.PolygonAlbumentations",
        transforms=[dict(type="Affine", rotate=(-10, 10), fill=114, p=0.5)],
    ),
    dict(type="opsin.CropText", size=160),
    dict(type="opsin.PackTextInputs"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadTextAnnotations"),
    dict(type="opsin.PackTextInputs"),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler"),
    dataset=dict(**dataset, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(**dataset, pipeline=test_pipeline)
)
test_dataloader = val_dataloader

max_epochs = 24
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type="CosineAnnealingLR", by_epoch=True, T_max=max_epochs, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
