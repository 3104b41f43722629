# The published pre-training on ImageNet, whose LR pictures are made while training.
_base_ = "./schedule_500k.py"
train_cfg = dict(max_iters=800_000)
param_scheduler = [
    dict(
        type="MultiStepLR",
        by_epoch=False,
        milestones=[300_000, 500_000, 650_000, 700_000, 750_000],
        gamma=0.5,
    )
]
