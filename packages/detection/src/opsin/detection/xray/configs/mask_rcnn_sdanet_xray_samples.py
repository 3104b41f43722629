# SDANet on a Mask R-CNN small enough to learn the simulated sample data from scratch on a CPU.
_base_ = [
    "opsin.detection::mask_rcnn_tiny.py",
    "opsin.detection::schedule_scratch.py",
    "opsin.detection::runtime_mmdet.py",
    "_base_/pidray.py",
]
task = "xray_detection"

data_root = "data/xray_samples/"
model = dict(
    neck=dict(type="opsin.SDAFPN"),
    rpn_head=dict(anchor_generator=dict(scales=[4, 8], ratios=[0.5, 1.0, 2.0])),
    roi_head=dict(bbox_head=dict(num_classes=12), mask_head=dict(num_classes=12)),
)

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects", with_masks=True),
    dict(
        type="opsin.Albumentations",
        min_visibility=0.5,
        transforms=[
            dict(type="HorizontalFlip", p=0.5),
            dict(type="VerticalFlip", p=0.5),
            dict(type="Affine", scale=(0.8, 1.25), rotate=(-45, 45), p=0.7, fill=255),
        ],
    ),
    dict(type="opsin.PackDetection"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(type="opsin.PackDetection", meta_keys=_base_.meta_keys),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    # rare items as often as frequent ones
    sampler=dict(_delete_=True, type="ClassAwareSampler"),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
