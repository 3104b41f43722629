# The same at 4e-3 for 2048 pictures, with adaptive gradient clipping and averaged weights, as
# EfficientViT and SHViT were trained. The authors clip no gradient of the head.
_base_ = ["./adamw_300_epochs.py"]

optim_wrapper = dict(
    type="AdaptiveClipOptimWrapper",
    clip_grad=dict(clip_factor=0.02),
    optimizer=dict(lr=4e-3, weight_decay=0.025),
)
auto_scale_lr = dict(base_batch_size=2048)
param_scheduler = [
    dict(type="LinearLR", start_factor=2.5e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=5,
        end=300,
        T_max=295,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=4e-5)]
