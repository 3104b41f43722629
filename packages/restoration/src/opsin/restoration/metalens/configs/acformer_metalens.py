# The published training: 4 GPUs with 2 crops each. The learning rate would fall over 208k iterations from the
# 92,000th on, and training ends at the 100,000th, so that it hardly falls.
_base_ = ["./_base_/photographs.py", "opsin::_base_/runtime.py"]
model = dict(type="opsin.AberrationCorrector", network=dict(type="opsin.ACFormer", filters=13, dim=48))
train_cfg = dict(type="IterBasedTrainLoop", max_iters=100_000, val_interval=5_000)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", by_epoch=False, begin=92_000, end=300_000, T_max=208_000, eta_min=1e-6)
]
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(by_epoch=False, interval=5_000, save_best="metalens/psnr_y", rule="greater"),
)
log_processor = dict(by_epoch=False)
