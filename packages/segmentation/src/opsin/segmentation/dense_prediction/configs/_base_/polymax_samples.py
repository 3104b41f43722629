# A small PolyMaX and a training of a few minutes on one core.
dims = (32, 48, 64, 96)
model = dict(
    type="opsin.PolyMax",
    backbone=dict(
        type="opsin.ConvNeXt", arch=dict(depths=(1, 1, 2, 1), dims=dims), layer_scale_init_value=1.0
    ),
    in_channels=dims,
    num_centers=16,
    dims=(32, 24, 16, 16),
    layers=(1, 1, 1, 1),
    kmax_layers=(1, 1, 1),
    norm_momentum=0.1,
)
max_iters = 300
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=100)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=20, end=max_iters),
]
