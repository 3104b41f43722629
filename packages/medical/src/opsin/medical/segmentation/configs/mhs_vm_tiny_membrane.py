# Cells between the membranes of ISBI 2012's electron microscopy: DATA has images/ and masks/, 20 slices of
# 512x512, of which the last five are for validation. Prediction runs in windows.
_base_ = ["./_base_/isic.py", "./_base_/short.py"]
data_root = "data/membrane/"
classes = ("membrane", "cell")
channels = 1
standardise = dict(type="NormalizeIntensityd", keys="img")
moves = [
    dict(type="RandSpatialCropd", roi_size=(128, 128), random_size=False),
    dict(type="RandFlipd", prob=0.5, spatial_axis=1),
    dict(type="RandRotate90d", prob=0.75, max_k=3),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    drop_last=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        data_root=data_root,
        classes=classes,
        channels=channels,
        cache_num=15,
        indices=15,
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[standardise, *moves]),
            dict(type="opsin.PackMedical"),
        ],
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        classes=classes,
        channels=channels,
        indices=(15, 16, 17, 18, 19),
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[standardise]),
            dict(type="opsin.PackMedical"),
        ],
    ),
)
test_dataloader = val_dataloader
model = dict(network=dict(arch="tiny"), window=(128, 128))
train_cfg = dict(max_iters=300, val_interval=300)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, end=300, eta_min=1e-4)]
