# Grey and white matter in slices of nilearn's MNI152 head; the data come with the wheel.
_base_ = "./loaders.py"
classes = ("background", "grey matter", "white matter")
channels = 1
standardise = dict(type="NormalizeIntensityd", keys="img")
moves = [
    dict(type="RandSpatialCropd", roi_size=(96, 96), random_size=False),
    dict(type="RandFlipd", prob=0.5, spatial_axis=1),
]
train_dataloader = dict(
    dataset=dict(
        type="opsin.MNI152Slices",
        classes=classes,
        split="train",
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[standardise, *moves]),
            dict(type="opsin.PackMedical"),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="opsin.MNI152Slices",
        classes=classes,
        split="val",
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[standardise]),
            dict(type="opsin.PackMedical"),
        ],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.SubjectDiceMetric", classes=classes)
test_evaluator = val_evaluator
