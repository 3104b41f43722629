# Boxes: 500 epochs of 60k pairs on 8 processes, lr of the backbone a tenth.
_base_ = ["./tracker.py", "./networks.py"]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=500, val_interval=20)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"network.backbone": dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [dict(type="MultiStepLR", milestones=[400], gamma=0.1)]
