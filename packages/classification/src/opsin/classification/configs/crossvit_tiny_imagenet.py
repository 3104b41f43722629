# CrossViT-Ti on ImageNet-1K as published: 300 epochs at 240 pixels, total batch 4096, 73.4 top-1. The other
# variants change arch and multi_conv alone.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs.py"]

train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="Albumentations",
        transforms=[
            # 2 is cv2.INTER_CUBIC
            dict(type="RandomResizedCrop", size=(240, 240), interpolation=2, area_for_downscale="image"),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="RandAugment", magnitude=9, magnitude_std=0.5),
    dict(type="Albumentations", transforms=[dict(type="Erasing", p=0.25, fill="random")]),
    dict(type="PackClassification"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=240, crop_ratio=0.875),
    dict(type="PackClassification"),
]
train_dataloader = dict(
    sampler=dict(_delete_=True, type="RepeatedAugmentation"), dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(network=dict(type="CrossViTClassifier", arch="tiny", drop_path_rate=0.1, num_classes=1000))

optim_wrapper = dict(optimizer=dict(lr=4e-3))
auto_scale_lr = dict(base_batch_size=4096)
param_scheduler = [
    dict(type="LinearLR", start_factor=2.5e-4, by_epoch=True, begin=0, end=30, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=30,
        end=300,
        T_max=270,
        convert_to_iter_based=True,
    ),
]
