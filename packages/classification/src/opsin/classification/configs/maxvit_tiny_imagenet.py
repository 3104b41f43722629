# MaxViT-T on ImageNet-1K as published: 300 epochs, total batch 4096, 83.62 top-1. The others drop more paths:
# drop_path_rate 0.3 (small), 0.4 (base), 0.6 (large).
_base_ = ["./_base_/imagenet_224.py"]

train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="Albumentations",
        transforms=[
            # 2 is cv2.INTER_CUBIC
            dict(type="RandomResizedCrop", size=(224, 224), interpolation=2, area_for_downscale="image"),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    # the authors' magnitude is 15, beyond the strongest that there is here
    dict(type="RandAugment", magnitude=10, magnitude_std=0, num_ops=2, probability=1.0),
    dict(type="PackClassification"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

model = dict(
    network=dict(type="MaxViTClassifier", arch="tiny", drop_path_rate=0.2, num_classes=1000),
    batch_augmentation=dict(cutmix=0.0),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    # its decay is 1: it keeps weight decay off 1-D tensors and bias tables
    constructor="LayerDecayConstructor",
)
auto_scale_lr = dict(enable=True, base_batch_size=4096)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
warmup = 32  # 10,000 steps of 4096 pictures
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=warmup, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=warmup,
        end=300,
        T_max=300 - warmup,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=1e-4)]
