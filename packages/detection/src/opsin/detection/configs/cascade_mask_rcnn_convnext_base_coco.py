# 52.7 box AP, 45.6 mask AP (authors, weights pretrained on ImageNet-1K).
_base_ = ["cascade_mask_rcnn_convnext_tiny_coco.py"]
model = dict(
    backbone=dict(arch="base", drop_path_rate=0.7),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay=0.8))
