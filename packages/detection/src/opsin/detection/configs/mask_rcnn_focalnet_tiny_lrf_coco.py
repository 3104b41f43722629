# FocalNet-T (LRF) with Mask R-CNN, 12 epochs of COCO as published: 46.1 box AP, 41.5 mask AP (authors), from
# weights that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published',
# checkpoint=FILE), whose kernels are centred in the larger ones. Their 36 epochs (48.0, 42.9) use
# drop_path_rate 0.3 and milestones 27 and 33.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_1x.py",
]
model = dict(
    backbone=dict(_delete_=True, type="opsin.FocalNet", arch="tiny_lrf", focal_windows=9, drop_path_rate=0.1)
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[9, 11], gamma=0.1),
]
