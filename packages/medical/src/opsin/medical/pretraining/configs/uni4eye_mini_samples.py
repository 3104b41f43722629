# A Uni4Eye of 0.9 million parameters on the sample lists: 64 pixels, patches of 8.
_base_ = ["./_base_/lists.py"]

data_root = "data/medical_pretraining_samples/"
model = dict(
    type="Uni4Eye",
    encoder=dict(size=64, patch_size=8, dim=96, depth=4, heads=4),
    decoder_dim=64,
    decoder_depth=2,
    decoder_heads=4,
    data_preprocessor=dict(type="StackInputs"),
)
_edges = dict(type="EdgeTarget")
_pack = dict(type="PackPretraining")
_lists = dict(data_root=data_root)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    batch_sampler=dict(volume_batch_size=2),
    dataset=dict(
        **_lists,
        pipeline=[
            dict(
                type="ByKind",
                picture=[
                    dict(type="LoadImage"),
                    dict(type="Albumentations", transforms=[dict(type="D4", p=1.0)]),
                ],
                volume=[
                    dict(type="LoadVolume"),
                    dict(type="AugmentVolume", noise=0.0),
                    dict(type="FitVolume", size=64),
                ],
            ),
            _edges,
            _pack,
        ],
    ),
)
_test_pipeline = [
    dict(
        type="ByKind",
        picture=[
            dict(type="LoadImage"),
            dict(type="Albumentations", transforms=[dict(type="Resize", height=64, width=64, p=1.0)]),
        ],
        volume=[dict(type="LoadVolume"), dict(type="FitVolume", size=64)],
    ),
    _edges,
    _pack,
]
val_dataloader = dict(num_workers=1, dataset=dict(**_lists, pipeline=_test_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(**_lists, pipeline=_test_pipeline))
predict_pipeline = [
    dict(
        type="ByKind",
        picture=[dict(type="Albumentations", transforms=[dict(type="Resize", height=64, width=64, p=1.0)])],
        volume=[dict(type="LoadVolume"), dict(type="FitVolume", size=64)],
    ),
    _pack,
]

optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05)
)
train_cfg = dict(by_epoch=True, max_epochs=16, val_interval=4)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=2, end=16, T_max=14, convert_to_iter_based=True),
]
