# 24 epochs on 8 processes with one picture each.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1.4e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys={
            "backbone": dict(lr_mult=0.1),
            "sampling_offsets": dict(lr_mult=0.1),
            "reference_points": dict(lr_mult=0.1),
        }
    ),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=24, val_interval=1)
param_scheduler = [dict(type="MultiStepLR", milestones=[18], gamma=0.1, by_epoch=True)]
