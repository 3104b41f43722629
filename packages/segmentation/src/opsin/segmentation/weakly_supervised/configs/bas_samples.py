# A thin VGG from scratch, on the data that `opsin samples weakly_supervised DIR` writes.
_base_ = ["./_base_/localization.py"]

data_root = "data/weakly_supervised_samples/"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="Resize", height=72, width=72),
            dict(type="RandomCrop", height=64, width=64),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="opsin.PackWeak"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.CenterView", resize=72, crop=64),
    dict(type="opsin.PackWeak"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(data_root=data_root + "CUB_200_2011", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=12,
    num_workers=1,
    dataset=dict(data_root=data_root + "CUB_200_2011", pipeline=test_pipeline),
)
test_dataloader = val_dataloader

model = dict(
    # few convolutions: without pretraining, features that see the whole picture don't tell where things are
    network=dict(
        type="opsin.BASVGG",
        num_classes=3,
        widths=((16,), (32,), (64,), (64,), (64,)),
        classifier_width=64,
        clamp_value=1.0,
    ),
    guidance_weight=1.0,
    area_weight=1.7,
    top_k=1,
    threshold=0.9,
    classify_first=60,
)

max_iters = 240
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=80)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, end=max_iters)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=80))
log_processor = dict(by_epoch=False)
