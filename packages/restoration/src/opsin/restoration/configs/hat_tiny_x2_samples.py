# A training of a minute or two on the sample data set (opsin samples super_resolution DIR).
_base_ = ["./_base_/x2.py", "./_base_/schedule_500k.py"]
model = dict(
    network=dict(
        img_size=24,
        window_size=8,
        embed_dim=36,
        depths=(2, 2),
        num_heads=(3, 3),
        squeeze_factor=6,
        init_cfg=dict(type="opsin.InterpolationInit"),
    )
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        pipeline=[
            dict(type="opsin.LoadPair"),
            dict(type="opsin.RandomCropPair", size=24),
            dict(type="opsin.RandomSymmetry"),
            dict(type="opsin.PackPair"),
        ]
    ),
)
train_cfg = dict(max_iters=300, val_interval=100)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=300, eta_min=1e-5),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.02)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100))
