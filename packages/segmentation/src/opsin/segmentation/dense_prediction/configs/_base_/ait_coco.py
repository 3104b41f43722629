# COCO instances in pictures of 640, as AiT reads them.
_base_ = ["opsin::runtime.py"]

task = "dense_prediction"
default_scope = "opsin"
data_root = "data/coco/"
size = (640, 640)
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="mmdet.RandomResize",
        scale=size,
        ratio_range=(0.3, 2.0),
        keep_ratio=True,
        resize_type="mmdet.Resize",
    ),
    dict(type="mmdet.RandomCrop", crop_size=size),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmdet.FilterAnnotations", min_gt_bbox_wh=(1, 1)),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="mmdet.Resize", scale=size, keep_ratio=True),
    dict(
        type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="opsin.CocoInstances",
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.CocoInstances",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="mmdet.CocoMetric",
    ann_file=data_root + "annotations/instances_val2017.json",
    metric=["bbox", "segm"],
)
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False, window_size=50)
data_preprocessor = dict(
    type="mmdet.DetDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    pad_size_divisor=32,
    pad_mask=True,
    batch_augments=[dict(type="mmdet.BatchFixedSizePad", size=size, pad_mask=True)],
)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",
    paramwise_cfg=dict(decay=0.9),
    clip_grad=dict(max_norm=10.0),
)
