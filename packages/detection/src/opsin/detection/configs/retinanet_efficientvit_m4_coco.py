# EfficientViT-M4 with RetinaNet, 12 epochs of COCO as published: 32.7 box AP (authors), from weights
# that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = ["retinanet_shvit_s4_coco.py"]  # the same pyramid and schedule
model = dict(
    backbone=dict(type="opsin.EfficientViT", arch="m4"),
    neck=dict(in_channels=[128, 256, 384]),
)
# the bias tables of the attention don't decay
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"attention_biases": dict(decay_mult=0.0)}))
