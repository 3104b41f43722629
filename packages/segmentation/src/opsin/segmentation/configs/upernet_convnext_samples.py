# A small ConvNeXt with UPerNet, from scratch, on the data that `opsin samples segmentation DIR` writes.
_base_ = ["./_base_/upernet.py", "./_base_/mask_pairs.py"]

data_root = "data/segmentation_samples/"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadMask"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="Affine", scale=(0.8, 1.25), rotate=(-10, 10), fill_mask=255, p=0.7),
            dict(type="RandomBrightnessContrast", p=0.5),
        ],
    ),
    dict(type="mmseg.PackSegInputs"),
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path="images/train", seg_map_path="masks/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path="images/val", seg_map_path="masks/val"),
    )
)
test_dataloader = val_dataloader

dims = [32, 64, 128, 192]
norm_cfg = dict(type="BN")
model = dict(
    data_preprocessor=dict(size_divisor=32, test_cfg=dict(size_divisor=32)),
    backbone=dict(type="opsin.ConvNeXt", arch=dict(depths=(2, 2, 3, 2), dims=dims)),
    decode_head=dict(in_channels=dims, channels=48, num_classes=7, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=dims[2], channels=32, num_classes=7, norm_cfg=norm_cfg),
)

max_iters = 400
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=200)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",  # one rate; norms and biases don't decay
    paramwise_cfg=dict(decay=1.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=20, end=max_iters),
]
