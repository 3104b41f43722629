# 46.2 box AP, 41.7 mask AP (authors), from weights that they pretrained on ImageNet-1K:
# model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_3x.py",
]
model = dict(backbone=dict(arch="tiny", drop_path_rate=0.4))
optim_wrapper = dict(paramwise_cfg=dict(decay=0.95))
