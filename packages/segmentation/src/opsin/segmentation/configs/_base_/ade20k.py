# ADE20K in its published layout, 512 pixels, with the augmentation of the recipes.
_base_ = ["./mask_pairs.py"]

data_root = "data/ADEChallengeData2016/"
crop_size = (512, 512)
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadMask"),
    # the short side becomes 512 times 0.5 to 2
    dict(
        type="opsin.Albumentations",
        transforms=[dict(type="SmallestMaxSize", max_size=list(range(256, 1025, 32)))],
    ),
    dict(type="mmseg.RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="HorizontalFlip", p=0.5),
            dict(
                type="ColorJitter",
                brightness=(0.875, 1.125),
                contrast=(0.5, 1.5),
                saturation=(0.5, 1.5),
                hue=(-0.1, 0.1),
                p=0.5,
            ),
        ],
    ),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.Albumentations", transforms=[dict(type="SmallestMaxSize", max_size=512)]),
    dict(type="opsin.LoadMask"),  # evaluation compares in the original size
    dict(type="mmseg.PackSegInputs"),
]

train_dataloader = dict(
    dataset=dict(
        type="opsin.ADE20K",
        data_root=data_root,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type="opsin.ADE20K",
        data_root=data_root,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
