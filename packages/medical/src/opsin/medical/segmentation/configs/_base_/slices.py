# Grey slices of subjects. Data: DATA/train, DATA/val and DATA/test, each with Img/ and GT/.
_base_ = "./loaders.py"
data_root = "data/chaos/"
classes = ("background", "liver", "right kidney", "left kidney", "spleen")
channels = 1
label_values = (0, 63, 126, 189, 252)
scale = dict(type="ScaleIntensityRanged", keys="img", a_min=0, a_max=255, b_min=0, b_max=1)
train_pipeline = [
    dict(
        type="opsin.MonaiTransforms",
        transforms=[
            scale,
            dict(type="ResizeWithPadOrCropd", spatial_size=(256, 256)),
            dict(type="RandFlipd", prob=0.5, spatial_axis=0),
            dict(type="RandFlipd", prob=0.5, spatial_axis=1),
            dict(type="RandRotated", prob=0.5, range_x=0.5236, mode="nearest", padding_mode="zeros"),
        ],
    ),
    dict(type="opsin.PackMedical"),
]
test_pipeline = [dict(type="opsin.MonaiTransforms", transforms=[scale]), dict(type="opsin.PackMedical")]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    drop_last=True,
    sampler=dict(type="DefaultSampler"),
    dataset=dict(
        type="opsin.SliceDataset", data_root=data_root + "train", classes=classes, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="opsin.SliceDataset",
        data_root=data_root + "val",
        classes=classes,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    dataset=dict(
        type="opsin.SliceDataset",
        data_root=data_root + "test",
        classes=classes,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="opsin.SubjectDiceMetric", classes=classes)
test_evaluator = val_evaluator
