# The first phase of real-world training in about a minute, ×2, on the sample data set (opsin samples
# super_resolution DIR).
_base_ = ["./_base_/real_x4.py", "./_base_/schedule_1000k.py"]
model = dict(
    network=dict(
        upscale=2,
        img_size=16,
        window_size=8,
        embed_dim=36,
        depths=(2, 2),
        num_heads=(3, 3),
        squeeze_factor=6,
        init_cfg=dict(type="opsin.InterpolationInit"),
    )
)
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        scale=2,
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(type="opsin.Albumentations", transforms=[dict(type="HorizontalFlip", p=0.5)]),
            dict(type="opsin.RealWorldDegradation"),
            dict(type="opsin.RandomCropPair", size=16),
            dict(type="opsin.PackPair"),
        ],
    ),
)
val_dataloader = dict(dataset=dict(scale=2))
test_dataloader = val_dataloader
val_evaluator = dict(crop_border=2)
test_evaluator = val_evaluator
train_cfg = dict(max_iters=300, val_interval=100)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=10),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=10, end=300, eta_min=1e-5),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.05)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100))
