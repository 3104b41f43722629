# Agent-PVT-T on ImageNet-1K as published: 300 epochs and ten more at the lowest rate, 78.4 top-1. Medium
# and large take drop_path_rate 0.3 and clip gradients at 1. The learning rate is that of 512 images and
# follows the total batch that is really used.
_base_ = ["./_base_/imagenet_224_warped.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="AgentPVTClassifier", arch="tiny", drop_path_rate=0.1, num_classes=1000))

optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=512)
train_cfg = dict(max_epochs=310)
param_scheduler = [
    dict(type="LinearLR", start_factor=2e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
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
