# A MedMNIST file at 224 pixels, trained as MedViTV2's authors do; a config adds file, network and iterations.
# They choose the best epoch by the test split; here the validation split does.
_base_ = ["opsin::runtime.py"]

task = "medical_classification"
default_scope = "opsin"
data_root = "data/medmnist/"

model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(type="ImgDataPreprocessor", mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=False),
)
train_pipeline = [
    dict(
        type="Albumentations",
        transforms=[dict(type="RandomResizedCrop", size=(224, 224), p=1.0)],
    ),
    dict(type="AugMix", severity=3, alpha=0.4),
    dict(type="Albumentations", transforms=[dict(type="HorizontalFlip", p=0.4)]),
    dict(type="PackClassification"),
]
test_pipeline = [
    dict(type="EvaluationCrop", size=224, crop_ratio=None),
    dict(type="PackClassification"),
]
train_dataloader = dict(
    batch_size=24,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="MedMNIST", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=48,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="MedMNIST", data_root=data_root, split="val", test_mode=True, pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=48,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="MedMNIST", data_root=data_root, split="test", test_mode=True, pipeline=test_pipeline),
)
val_evaluator = dict(type="DiagnosisMetric")
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
)
param_scheduler = [
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        begin=0,
        end=100,
        T_max=100,
        eta_min=5e-6,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(checkpoint=dict(save_best="medical/auc", rule="greater"))
