# MambaOut-Femto on ImageNet-1K as published: 300 epochs and ten of cool-down, total batch 4096, 78.9 top-1.
# The other variants change arch and drop_path_rate (kobe 0.025, tiny 0.2, small 0.4, base 0.6). The
# learning rate follows the total batch that is really used.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="MambaOutClassifier", arch="femto", drop_path_rate=0.025, num_classes=1000))
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=224, crop_ratio=1.0),
    dict(type="PackClassification"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=4e-3))
auto_scale_lr = dict(base_batch_size=4096)
train_cfg = dict(max_epochs=310)
param_scheduler = [
    dict(type="LinearLR", start_factor=2.5e-4, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=20,
        end=300,
        T_max=280,
        convert_to_iter_based=True,
    ),
]
