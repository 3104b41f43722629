# A MedViTV2 of 1.5 million parameters on the sample data; trained from scratch, so with the clean layout.
_base_ = ["./_base_/medmnist_224.py"]

data_root = "data/medical_classification_samples/"
model = dict(
    network=dict(
        type="MedViTV2Classifier",
        arch=dict(depths=(1, 1, 3, 1), dims=(32, 128, 128, 128), stem=(16, 16, 32), mix_ratio=0.5),
        num_classes=3,
        drop_path_rate=0.0,
        layout="clean",
    )
)
_file = dict(data_root=data_root, file="head_112", classes=("axial", "coronal", "sagittal"))
_flips = dict(type="Albumentations", transforms=[dict(type="HorizontalFlip", p=0.5)])
_pack = dict(type="PackClassification")
train_dataloader = dict(batch_size=10, num_workers=1, dataset=dict(**_file, pipeline=[_flips, _pack]))
val_dataloader = dict(batch_size=30, num_workers=1, dataset=dict(**_file, pipeline=[_pack]))
test_dataloader = dict(batch_size=30, num_workers=1, dataset=dict(**_file, pipeline=[_pack]))
predict_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=112, crop_ratio=None),
    dict(type="PackClassification"),
]

train_cfg = dict(max_epochs=5, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(end=5, T_max=5, convert_to_iter_based=True, type="CosineAnnealingLR", by_epoch=True, begin=0)
]
