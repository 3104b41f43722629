# Uni4Eye, ViT-L: epochs and batch are chosen (the paper's can't be had), the rest is usual for the method.
_base_ = ["./_base_/lists.py"]

model = dict(type="Uni4Eye", data_preprocessor=dict(type="StackInputs"))
_edges = dict(type="EdgeTarget")
_pack = dict(type="PackPretraining")
train_pipeline = [
    dict(
        type="ByKind",
        picture=[
            dict(type="LoadImage"),
            dict(
                type="Albumentations",
                transforms=[
                    dict(type="RandomResizedCrop", size=(224, 224), scale=(0.2, 1.0), p=1.0),
                    dict(type="HorizontalFlip", p=0.5),
                ],
            ),
        ],
        volume=[dict(type="LoadVolume"), dict(type="AugmentVolume"), dict(type="FitVolume", size=224)],
    ),
    _edges,
    _pack,
]
test_pipeline = [
    dict(
        type="ByKind",
        picture=[
            dict(type="LoadImage"),
            dict(type="Albumentations", transforms=[dict(type="Resize", height=224, width=224, p=1.0)]),
        ],
        volume=[dict(type="LoadVolume"), dict(type="FitVolume", size=224)],
    ),
    _edges,
    _pack,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=1e-3 * 64 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
train_cfg = dict(by_epoch=True, max_epochs=400, val_interval=20)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=40, end=400, T_max=360, convert_to_iter_based=True),
]
