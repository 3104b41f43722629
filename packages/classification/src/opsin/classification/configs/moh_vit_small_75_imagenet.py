# MoH-ViT-S with 75 % of the heads on ImageNet-1K as published: 300 epochs, total batch 1024, 84.6 top-1. The
# other small model (small_80, 84.7) changes arch alone, base_75 and base_50 also drop_path_rate (0.6). The
# load-balance loss of the routed heads, times 0.01, is logged as loss_balance.
_base_ = ["./_base_/imagenet_224.py"]

model = dict(network=dict(type="MoHViTClassifier", arch="small_75", drop_path_rate=0.45, num_classes=1000))
train_dataloader = dict(sampler=dict(_delete_=True, type="RepeatedAugmentation"))

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",  # theirs is float16
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    constructor="LayerDecayConstructor",  # its decay is 1: what no_weight_decay() names is exempt
)
auto_scale_lr = dict(enable=True, base_batch_size=1024)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
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
