# HaloNet-H0 on ImageNet-1K at 256 pixels in the paper's manner: 350 epochs, SGD with Nesterov momentum, total
# batch 4096, label smoothing, stronger augmentation for larger variants. The paper's rate and the strengths
# are not known here; those below are chosen. H1 to H7 change arch and the size (256, 256, 320, 384, 448, 512,
# 600).
_base_ = ["./_base_/imagenet_224.py"]

model = dict(
    network=dict(type="HaloNetClassifier", arch="h0", num_heads=(4, 8, 8, 8), num_classes=1000),
    batch_augmentation=None,
)
size = 256
train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="Albumentations",
        transforms=[
            # 2 is cv2.INTER_CUBIC
            dict(type="RandomResizedCrop", size=(size, size), interpolation=2, area_for_downscale="image"),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="RandAugment", magnitude=6, magnitude_std=0.5),
    dict(type="PackClassification"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=size, crop_ratio=0.875),
    dict(type="PackClassification"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=1.6, momentum=0.9, nesterov=True, weight_decay=4e-5),
    constructor="LayerDecayConstructor",  # its decay is 1: it only keeps weight decay off 1-D tensors
)
auto_scale_lr = dict(enable=True, base_batch_size=4096)
train_cfg = dict(by_epoch=True, max_epochs=350, val_interval=1)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=10, end=350, T_max=340, convert_to_iter_based=True),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=1e-4)]
