# Agent-Swin-T on ImageNet-1K as published: 300 epochs, 82.6 top-1. Small takes drop_path_rate 0.3, base
# 0.5. The learning rate is that of 512 images and follows the total batch that is really used.
_base_ = ["./_base_/imagenet_224_warped.py"]

model = dict(network=dict(type="AgentSwinClassifier", arch="tiny", drop_path_rate=0.2, num_classes=1000))

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    constructor="LayerDecayConstructor",  # its decay is 1: what no_weight_decay() names is exempt
)
auto_scale_lr = dict(enable=True, base_batch_size=512)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
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
