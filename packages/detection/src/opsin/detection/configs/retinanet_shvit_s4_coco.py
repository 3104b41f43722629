# SHViT-S4 with RetinaNet, 12 epochs of COCO as published: 38.8 box AP (authors), from weights
# that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/retinanet.py",
    "_base_/coco_detection_1x.py",
    "_base_/schedule_1x.py",
]
model = dict(
    backbone=dict(type="opsin.SHViT", arch="s4", norm_eval=True),
    neck=dict(
        type="opsin.EfficientViTFPN",
        in_channels=[224, 336, 448],
        out_channels=256,
        num_outs=5,
        num_extra_trans_convs=1,  # stride 8
        add_extra_convs="on_input",  # stride 128
    ),
)
