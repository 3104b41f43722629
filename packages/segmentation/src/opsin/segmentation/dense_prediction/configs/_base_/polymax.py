# PolyMaX with ConvNeXt-L: optimizer and length; the output comes from depth.py, normals.py or semantic.py.
model = dict(
    type="opsin.PolyMax",
    backbone=dict(type="opsin.ConvNeXt", arch="large", drop_path_rate=0.6),
    in_channels=(192, 384, 768, 1536),
    num_centers=128,
)

max_iters = 50000
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys={"backbone": dict(lr_mult=0.1)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=5000),
    dict(type="PolyLR", power=0.9, eta_min=0.0, by_epoch=False, begin=5000, end=max_iters),
]
