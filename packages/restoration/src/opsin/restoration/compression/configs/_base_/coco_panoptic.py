# COCO 2017 with panoptic masks as regions, and how SegPIC is trained on it.
_base_ = "opsin::_base_/runtime.py"
task = "compression"
data_root = "data/coco/"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadRegions"),
    dict(type="opsin.StretchShortSides", size=256),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="RandomCrop", height=256, width=256),
            dict(type="HorizontalFlip", p=0.5),
            dict(type="VerticalFlip", p=0.5),
        ],
    ),
    dict(type="opsin.PackCompression"),
]
val_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.StretchShortSides", size=256),
    dict(type="opsin.Albumentations", transforms=[dict(type="CenterCrop", height=256, width=256)]),
    dict(type="opsin.PackCompression"),
]
predict_pipeline = [dict(type="opsin.LoadImage"), dict(type="opsin.PackCompression")]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="opsin.RegionPictureDataset",
        data_root=data_root,
        img_dir="train2017",
        mask_dir="annotations/panoptic_train2017",
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.RegionPictureDataset",
        data_root=data_root,
        img_dir="val2017",
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.RateDistortionMetric")
test_evaluator = val_evaluator
model = dict(type="opsin.ImageCompressor", network=dict(type="opsin.SegPIC"), trade_off=0.0067)
model_wrapper_cfg = dict(type="opsin.SelfTrainingDataParallel")
optim_wrapper = dict(
    constructor="opsin.QuantilesApart",
    main=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4), clip_grad=dict(max_norm=1.0)),
    aux=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3)),
)
