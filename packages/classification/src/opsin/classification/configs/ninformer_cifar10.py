# NiNformer on CIFAR-10 as published: 100 epochs, batch 128, Adam at a constant rate. For CIFAR-100 set
# model.network.num_classes and the datasets' classes to 100.
_base_ = ["./_base_/image_folder.py"]

data_root = "data/cifar/"
train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="Albumentations",
        transforms=[
            dict(type="Pad", padding=4),
            dict(type="RandomCrop", height=32, width=32),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="PackClassification"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=32, crop_ratio=1.0),
    dict(type="PackClassification"),
]
train_dataloader = dict(
    batch_size=128,
    drop_last=False,
    dataset=dict(_delete_=True, type="CIFAR", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    dataset=dict(
        _delete_=True,
        type="CIFAR",
        data_root=data_root,
        split="test",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    network=dict(type="NiNformerClassifier", arch="cifar10", num_classes=10),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
