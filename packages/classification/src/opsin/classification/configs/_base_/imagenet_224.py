# ImageNet-1K at 224 pixels with the augmentation of DeiT, which ConvNeXt and Vim share. Their recipes list
# colour jitter too, but their code leaves it out wherever RandAugment is on.
_base_ = ["./image_folder.py"]

data_root = "data/imagenet/"
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
    dict(type="RandAugment", magnitude=9, magnitude_std=0.5),
    dict(type="Albumentations", transforms=[dict(type="Erasing", p=0.25, fill="random")]),
    dict(type="PackClassification"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=224, crop_ratio=0.875),
    dict(type="PackClassification"),
]
train_dataloader = dict(
    batch_size=128, num_workers=8, dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(
    batch_size=128, num_workers=8, dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader

model = dict(
    loss=dict(type="SoftTargetCrossEntropy", label_smoothing=0.1),
    batch_augmentation=dict(type="MixupCutmix", mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5),
)
