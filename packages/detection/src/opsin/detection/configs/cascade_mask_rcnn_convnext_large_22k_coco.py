# 54.8 box AP, 47.6 mask AP (authors, weights pretrained on ImageNet-22K).
_base_ = ["cascade_mask_rcnn_convnext_tiny_coco.py"]
model = dict(
    backbone=dict(arch="large", drop_path_rate=0.7),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
