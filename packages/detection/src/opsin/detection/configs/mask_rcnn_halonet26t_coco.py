# Mask R-CNN with FPN on HaloNet-26t, 12 epochs. The paper's detectors (a ResNet-50 with halo attention in its
# last stages) come without a recipe; this is the usual one with AdamW. Weights of ImageNet are timm's:
# model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance_1x.py",
    "_base_/schedule_1x.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="opsin.HaloNet",
        arch="halonet26t",
        frozen_stages=1,
        norm_eval=True,
        init_cfg=None,
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
