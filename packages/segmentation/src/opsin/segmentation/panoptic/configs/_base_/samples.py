# The data that `opsin samples panoptic DIR` writes. Digits are not flipped: a mirrored 4 is no 4.
_base_ = ["./panoptic.py"]

data_root = "data/panoptic_samples/"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadPanoptic"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="Affine", scale=(0.8, 1.25), rotate=(-10, 10), fill_mask=255, p=0.5),
            dict(type="RandomBrightnessContrast", p=0.5),
        ],
    ),
    dict(type="opsin.PackPanoptic"),
]
test_pipeline = [dict(type="opsin.LoadImage"), dict(type="opsin.PackPanoptic")]
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/panoptic_train.json",
        data_prefix=dict(img="images/train", seg="annotations/panoptic_train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/panoptic_val.json",
        data_prefix=dict(img="images/val", seg="annotations/panoptic_val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
