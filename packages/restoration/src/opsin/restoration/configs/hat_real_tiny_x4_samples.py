# Real-world training in about a minute, on the sample data set (opsin samples super_resolution DIR): both
# phases in one, and without the perceptual loss, whose weights a beginner does not have.
_base_ = "./hat_real_x4_gan.py"
model = dict(
    network=dict(
        img_size=16,
        window_size=8,
        embed_dim=36,
        depths=(2, 2),
        num_heads=(3, 3),
        squeeze_factor=6,
        init_cfg=dict(type="opsin.InterpolationInit"),
    ),
    discriminator=dict(num_feat=16),
    perceptual_loss=None,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(type="opsin.Albumentations", transforms=[dict(type="HorizontalFlip", p=0.5)]),
            dict(type="opsin.RealWorldDegradation"),
            dict(type="opsin.RandomCropPair", size=16),
            dict(type="opsin.PackPair"),
        ]
    ),
)
train_cfg = dict(max_iters=200, val_interval=100)
optim_wrapper = dict(
    network=dict(optimizer=dict(lr=1e-3)), discriminator=dict(optimizer=dict(lr=1e-3))
)
custom_hooks = [dict(type="opsin.ModuleEMAHook", ema_type="ExponentialMovingAverage", momentum=0.02)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100))
