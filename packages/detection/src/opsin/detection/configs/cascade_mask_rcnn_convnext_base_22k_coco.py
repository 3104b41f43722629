# 54.0 box AP, 46.9 mask AP (authors, weights pretrained on ImageNet-22K).
_base_ = ["cascade_mask_rcnn_convnext_base_coco.py"]
model = dict(backbone=dict(drop_path_rate=0.6))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
