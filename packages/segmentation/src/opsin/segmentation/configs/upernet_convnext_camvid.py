# A small ConvNeXt with UPerNet, from scratch, on CamVid at 480x360 with SegNet's 11 classes (11 is void):
# images/{train,val}/*.png, annotations/{train,val}/*.png.
_base_ = ["./_base_/upernet.py", "./_base_/mask_pairs.py"]

data_root = "data/camvid/"
classes = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
]
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadMask"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="RandomScale", scale_limit=(-0.4, 0.5), p=1.0),
            dict(type="RandomCrop", height=256, width=256, pad_if_needed=True, fill_mask=255),
            dict(type="HorizontalFlip", p=0.5),
            dict(type="ColorJitter", brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, p=0.8),
        ],
    ),
    dict(type="mmseg.PackSegInputs"),
]
pairs = dict(data_root=data_root, classes=classes, void=(11, 255))
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
        pipeline=train_pipeline,
        **pairs,
    ),
)
val_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"), **pairs)
)
test_dataloader = val_dataloader

dims = [32, 64, 128, 256]
norm_cfg = dict(type="BN")
model = dict(
    data_preprocessor=dict(size=(256, 256), test_cfg=dict(size_divisor=32)),
    backbone=dict(type="opsin.ConvNeXt", arch=dict(depths=(2, 2, 4, 2), dims=dims), drop_path_rate=0.1),
    decode_head=dict(in_channels=dims, channels=64, num_classes=11, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=dims[2], channels=64, num_classes=11, norm_cfg=norm_cfg),
)

max_iters = 1500
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=250)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",  # one rate; norms and biases don't decay
    paramwise_cfg=dict(decay=1.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=250))
