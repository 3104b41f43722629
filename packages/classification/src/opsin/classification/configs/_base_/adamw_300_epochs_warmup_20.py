# The same with twenty epochs of warm-up and clipped gradients, as Swin was trained.
_base_ = ["./adamw_300_epochs.py"]

optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
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
