# EfficientViT-M0 on ImageNet-1K as published: 300 epochs, total batch 2048, 63.2 top-1. The other variants
# change arch only. The authors clip no gradient of the head.
_base_ = ["./_base_/imagenet_224.py"]

model = dict(network=dict(type="EfficientViTClassifier", arch="m0", num_classes=1000))
train_dataloader = dict(sampler=dict(_delete_=True, type="RepeatedAugmentation"))

optim_wrapper = dict(
    type="AdaptiveClipOptimWrapper",
    clip_grad=dict(clip_factor=0.02),
    optimizer=dict(type="AdamW", lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.025),
    constructor="LayerDecayConstructor",  # its decay is 1; 1-D tensors and bias tables are exempt
)
auto_scale_lr = dict(enable=True, base_batch_size=2048)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
param_scheduler = [
    dict(type="LinearLR", start_factor=2.5e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
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
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=4e-5)]
