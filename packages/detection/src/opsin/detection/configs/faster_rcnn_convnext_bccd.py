# Faster R-CNN beside the RetinaNet of benchmarks/real_data.md: same backbone, data and schedule.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_tiny.py",
    "_base_/bccd.py",
    "_base_/schedule_scratch.py",
]

model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(pad_mask=False),
    rpn_head=dict(anchor_generator=dict(scales=[4, 6], ratios=[0.7, 1.0, 1.4])),
    roi_head=dict(bbox_head=dict(num_classes=3), mask_roi_extractor=None, mask_head=None),
    # Smears have up to 30 cells, and most of a picture's proposals are near one.
    train_cfg=dict(rcnn=dict(sampler=dict(pos_fraction=0.5))),
)
