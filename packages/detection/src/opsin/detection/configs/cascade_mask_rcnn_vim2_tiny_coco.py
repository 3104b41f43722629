# Cascade Mask R-CNN on ViM2-T; the paper trains such detectors, but no recipe was published: this is Swin's.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/cascade_mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_3x.py",
]
model = dict(
    backbone=dict(_delete_=True, type="opsin.ViM2", arch="tiny", drop_path_rate=0.2),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
