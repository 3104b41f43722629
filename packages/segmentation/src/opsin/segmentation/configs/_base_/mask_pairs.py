# Image and mask pairs; a config adds data_root, the folders, the classes and the training transforms.
_base_ = ["opsin::runtime.py"]

task = "segmentation"
default_scope = "opsin"
tiles = dict(size=None, overlap=128)  # predict cuts pictures larger than a size that is given

test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadMask"),
    dict(type="mmseg.PackSegInputs"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="opsin.MaskPairs"),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="opsin.MaskPairs", test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
custom_hooks = [dict(type="opsin.CheckClassCount")]

# training counts iterations, as is usual for segmentation
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=200, save_best="mIoU", rule="greater"),
)
log_processor = dict(by_epoch=False, window_size=50)
