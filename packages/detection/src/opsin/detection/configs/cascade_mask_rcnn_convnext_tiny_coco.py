# 50.4 box AP, 43.7 mask AP (authors).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/cascade_mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_3x.py",
]
model = dict(backbone=dict(arch="tiny", drop_path_rate=0.4))
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(decay=0.7))
