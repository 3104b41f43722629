# AiT with SwinV2-B for depth. Give the tokenizer as model.depth.checkpoint=FILE, and the backbone's
# pre-training as model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=FILE.
_base_ = ["./_base_/ait_depth.py"]

model = dict(
    type="opsin.AiT",
    backbone=dict(type="opsin.AiTSwinV2", arch="base", drop_path_rate=0.2, init_cfg=dict()),
    solver=dict(),
    depth=dict(tokenizer={{_base_.tokenizer}}, checkpoint=None),
)
train_dataloader = dict(batch_size=3)  # on 8 processes

max_iters = 25250
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",
    paramwise_cfg=dict(decay=0.9),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", milestones=[18180], gamma=0.1, by_epoch=False),
]
