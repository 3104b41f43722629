# Agent-Swin-T on ImageNet-1K as published: 300 epochs, 82.6 top-1. Small takes drop_path_rate 0.3, base
# 0.5. The learning rate is that of 512 images and follows the total batch that is really used.
_base_ = ["./_base_/imagenet_224_warped.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="AgentSwinClassifier", arch="tiny", drop_path_rate=0.2, num_classes=1000))

optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=5.0))
auto_scale_lr = dict(base_batch_size=512)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.01,
        by_epoch=True,
        begin=20,
        end=300,
        T_max=280,
        convert_to_iter_based=True,
    ),
]
