# Agent-CSWin-T on ImageNet-1K as published: 300 epochs and ten more at the lowest rate, 83.1 top-1 by
# averaged weights. Small takes drop_path_rate 0.4; base 0.5, weight decay 0.1 and an average that forgets
# 8e-5 a step.
_base_ = ["./agent_pvt_tiny_imagenet.py"]

model = dict(
    network=dict(
        _delete_=True, type="AgentCSWinClassifier", arch="tiny", drop_path_rate=0.2, num_classes=1000
    )
)

param_scheduler = [
    dict(type="LinearLR", start_factor=2e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=20,
        end=300,
        T_max=280,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=1.6e-4)]
