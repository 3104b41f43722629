# ImageNet-1K at 224 pixels with crops and flips only and plain cross entropy, as ResNets were first trained.
_base_ = ["./imagenet_224.py"]

train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="Albumentations",
        transforms=[
            dict(type="RandomResizedCrop", size=(224, 224), area_for_downscale="image"),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="PackClassification"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

model = dict(loss=dict(_delete_=True, type="SoftTargetCrossEntropy"), batch_augmentation=None)
