# The published training from scratch: 8 GPUs with 4 patches each.
_base_ = "opsin::_base_/runtime.py"
train_cfg = dict(type="IterBasedTrainLoop", max_iters=500_000, val_interval=5_000)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=2e-4, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type="MultiStepLR", by_epoch=False, milestones=[250_000, 400_000, 450_000, 475_000], gamma=0.5)
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.001)]
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(by_epoch=False, interval=5_000, save_best="sr/psnr_y", rule="greater"),
)
log_processor = dict(by_epoch=False)
