# Small networks from scratch on few pictures: 1500 iterations of 8 crops of 256x256.
_base_ = ["./mask_pairs.py"]

augmentation = dict(
    type="opsin.Albumentations",
    transforms=[
        dict(type="RandomScale", scale_limit=(-0.4, 0.5), p=1.0),
        dict(type="RandomCrop", height=256, width=256, pad_if_needed=True, fill_mask=255),
        dict(type="HorizontalFlip", p=0.5),
        dict(type="ColorJitter", brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, p=0.8),
    ],
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(type="opsin.LoadMask"),
            augmentation,
            dict(type="mmseg.PackSegInputs"),
        ]
    ),
)

max_iters = 1500
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=250)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",  # one rate; norms and biases don't decay
    paramwise_cfg=dict(decay=1.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=250))
