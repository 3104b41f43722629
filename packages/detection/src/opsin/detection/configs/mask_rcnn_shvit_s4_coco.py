# SHViT-S4 with Mask R-CNN, 12 epochs of COCO as published: 39.0 box AP, 35.9 mask AP (authors), from weights
# that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance_1x.py",
    "_base_/schedule_1x.py",
]
model = dict(
    backbone=dict(_delete_=True, type="opsin.SHViT", arch="s4", norm_eval=True),
    neck=dict(
        _delete_=True,
        type="opsin.EfficientViTFPN",
        in_channels=[224, 336, 448],
        out_channels=256,
        num_outs=5,
        num_extra_trans_convs=2,  # strides 4 and 8
    ),
)
