# The sample data set (`opsin samples classification DIR`): four materials at 64 pixels; ten seconds on two
# cores.
_base_ = ["./image_folder.py"]

data_root = "data/classification_samples/"
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="Albumentations", transforms=[dict(type="D4", p=1.0)]),  # the eight turns of a square
    dict(type="PackClassification"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=64, crop_ratio=1.0),
    dict(type="PackClassification"),
]
train_dataloader = dict(
    batch_size=20, num_workers=1, dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=60, num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, 2))
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=4e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    constructor="LayerDecayConstructor",
)
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=5)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=2, end=20, T_max=18, convert_to_iter_based=True),
]
