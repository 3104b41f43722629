# 55.2 box AP, 47.7 mask AP (authors, weights pretrained on ImageNet-22K).
_base_ = ["cascade_mask_rcnn_convnext_large_22k_coco.py"]
model = dict(
    backbone=dict(arch="xlarge", drop_path_rate=0.8),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
