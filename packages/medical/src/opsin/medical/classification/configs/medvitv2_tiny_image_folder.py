# MedViTV2-T on folders of pictures (train/<class>/*, val/<class>/*, test/<class>/*), as for PAD-UFES-20.
_base_ = ["./_base_/medmnist_224.py"]

data_root = "data/pad/"
model = dict(network=dict(type="MedViTV2Classifier", arch="tiny", num_classes=6))
_read = dict(type="LoadImage")
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageFolder",
        data_root=data_root,
        split="train",
        pipeline=[_read, *{{_base_.train_pipeline}}],
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageFolder",
        data_root=data_root,
        split="val",
        test_mode=True,
        pipeline=[_read, *{{_base_.test_pipeline}}],
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageFolder",
        data_root=data_root,
        split="test",
        test_mode=True,
        pipeline=[_read, *{{_base_.test_pipeline}}],
    )
)
default_hooks = dict(checkpoint=dict(save_best="medical/accuracy"))
