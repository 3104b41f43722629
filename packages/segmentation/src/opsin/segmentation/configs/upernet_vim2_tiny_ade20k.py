# ViM2-T with UPerNet on ADE20K; the paper trains such segmentors, but published no recipe: this is Swin's.
_base_ = ["./_base_/upernet_ade20k.py"]

dims = [64, 128, 256, 512]
model = dict(
    backbone=dict(type="opsin.ViM2", arch="tiny", drop_path_rate=0.2, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
)

max_iters = 160000
train_dataloader = dict(batch_size=16)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=16000)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    constructor="opsin.LayerDecayConstructor",  # its decay is 1: what no_weight_decay() names is exempt
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=16000))
