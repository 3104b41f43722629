# A thin seed network from scratch, on the data that `opsin samples weakly_supervised DIR` writes.
_base_ = ["./_base_/seeds.py"]

data_root = "data/weakly_supervised_samples/"
classes = ["blue_four", "green_one", "red_zero"]
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadImageLabels"),
    dict(type="opsin.Albumentations", transforms=[dict(type="HorizontalFlip", p=0.5)]),
    dict(type="opsin.PackWeak"),
]
predict_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.FindImageLabels", classes=classes),
    dict(type="opsin.PackWeak"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(data_root=data_root + "VOC2012", classes=classes, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=1, dataset=dict(data_root=data_root + "VOC2012", classes=classes, split="val")
)
test_dataloader = val_dataloader

model = dict(
    network=dict(type="opsin.BASSeeder", num_classes=3, depth=18, base_channels=16),
    area_weight=0.3,
    background=0.9,
    scales=(1.0, 2.0),
)

max_iters = 150
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=50)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, end=max_iters)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=50))
log_processor = dict(by_epoch=False)
