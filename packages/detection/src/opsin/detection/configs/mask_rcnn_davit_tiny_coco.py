# DaViT-T with Mask R-CNN, 12 epochs of COCO as published: 45.0 box AP, 41.1 mask AP (authors), from weights
# that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
# Their 36 epochs (47.4, 42.9) use drop_path_rate 0.2 and milestones 27 and 33.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_1x.py",
]
model = dict(backbone=dict(_delete_=True, type="opsin.DaViT", arch="tiny", drop_path_rate=0.1))
# weight decay is on all parameters, norms and biases too, as published
