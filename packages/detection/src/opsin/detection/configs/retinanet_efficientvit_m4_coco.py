# EfficientViT-M4 with RetinaNet, 12 epochs of COCO as published: 32.7 box AP (authors), from weights
# that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "opsin::runtime.py",
    "_base_/retinanet.py",
    "_base_/coco_detection_1x.py",
    "_base_/schedule_1x.py",
]
task = "detection"
default_scope = "mmdet"
custom_hooks = [dict(type="opsin.CheckClassCount")]
model = dict(
    backbone=dict(type="opsin.EfficientViT", arch="m4", norm_eval=True),
    neck=dict(
        type="opsin.EfficientViTFPN",
        in_channels=[128, 256, 384],
        out_channels=256,
        num_outs=5,
        num_extra_trans_convs=1,  # stride 8
        add_extra_convs="on_input",  # stride 128
    ),
)
# the bias tables of the attention don't decay
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"attention_biases": dict(decay_mult=0.0)}))
