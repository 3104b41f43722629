# Cells between the membranes of ISBI 2012's electron microscopy. Data: DATA has images/ and masks/, 20 slices
# of 512x512, of which the last five by name are for validation. Crops to train on, windows to predict in.
_base_ = "./loaders.py"
data_root = "data/membrane/"
classes = ("membrane", "cell")
channels = 1
standardise = dict(type="NormalizeIntensityd", keys="img")
moves = [
    dict(type="RandSpatialCropd", roi_size=(96, 96), random_size=False),
    dict(type="RandFlipd", prob=0.5, spatial_axis=1),
    dict(type="RandRotate90d", prob=0.75, max_k=3),
]
train_dataloader = dict(
    dataset=dict(
        type="opsin.ImageMaskDataset",
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
    dataset=dict(
        type="opsin.ImageMaskDataset",
        data_root=data_root,
        classes=classes,
        channels=channels,
        indices=(15, 16, 17, 18, 19),
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[standardise]),
            dict(type="opsin.PackMedical"),
        ],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.PooledPixelMetric")
test_evaluator = val_evaluator
