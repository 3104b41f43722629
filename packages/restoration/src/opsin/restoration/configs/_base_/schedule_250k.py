# The published training of ×4 from a trained ×2 network; give that one as load_from=….
_base_ = "./schedule_500k.py"
train_cfg = dict(max_iters=250_000)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type="MultiStepLR", by_epoch=False, milestones=[125_000, 200_000, 225_000, 240_000], gamma=0.5)
]
