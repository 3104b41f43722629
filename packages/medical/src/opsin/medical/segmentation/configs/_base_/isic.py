# Skin lesions. Data: DATA/train and DATA/val, each with images/ and masks/.
_base_ = "./loaders.py"
data_root = "data/isic/"
classes = ("background", "lesion")
channels = 3
resize = [dict(type="Resized", spatial_size=(256, 256), mode=("bilinear", "bilinear"))]
train_pipeline = [
    dict(type="opsin.StretchIntensity"),
    dict(
        type="opsin.MonaiTransforms",
        transforms=[
            dict(type="RandFlipd", prob=0.5, spatial_axis=1),
            dict(type="RandFlipd", prob=0.5, spatial_axis=0),
        ],
    ),
    dict(type="opsin.OneAngleRotation", prob=0.5),
    dict(type="opsin.MonaiTransforms", transforms=resize),
    dict(type="opsin.PackMedical"),
]
test_pipeline = [
    dict(type="opsin.StretchIntensity"),
    dict(type="opsin.MonaiTransforms", transforms=resize),
    dict(type="opsin.PackMedical"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    drop_last=True,
    sampler=dict(type="DefaultSampler"),
    dataset=dict(
        type="opsin.ImageMaskDataset", data_root=data_root + "train", classes=classes, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    num_workers=4,
    dataset=dict(
        type="opsin.ImageMaskDataset",
        data_root=data_root + "val",
        classes=classes,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.PooledPixelMetric")
test_evaluator = val_evaluator
model = dict(
    type="opsin.MedicalSegmentor", network=dict(type="opsin.MHSVM"), loss=dict(type="opsin.BCEDiceLoss")
)
