# MedViTV2-T on folders of pictures (train/<class>/*, val/<class>/*, test/<class>/*), as for PAD-UFES-20.
_base_ = ["./_base_/medmnist_224.py"]

data_root = "data/pad/"
model = dict(network=dict(type="MedViTV2Classifier", arch="tiny", num_classes=6))
# A list of the base can't be spread into another one, so its pipelines stand here again, after the reading.
_train_pipeline = [
    dict(type="LoadImage"),
    dict(type="Albumentations", transforms=[dict(type="RandomResizedCrop", size=(224, 224), p=1.0)]),
    dict(type="AugMix", severity=3, alpha=0.4),
    dict(type="Albumentations", transforms=[dict(type="HorizontalFlip", p=0.4)]),
    dict(type="PackClassification"),
]
_test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=224, crop_ratio=None),
    dict(type="PackClassification"),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageFolder",
        data_root=data_root,
        split="train",
        pipeline=_train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageFolder",
        data_root=data_root,
        split="val",
        test_mode=True,
        pipeline=_test_pipeline,
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageFolder",
        data_root=data_root,
        split="test",
        test_mode=True,
        pipeline=_test_pipeline,
    )
)
default_hooks = dict(checkpoint=dict(save_best="medical/accuracy"))
