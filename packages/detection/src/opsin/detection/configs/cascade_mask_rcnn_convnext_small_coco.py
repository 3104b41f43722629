# 51.9 box AP, 45.0 mask AP (authors).
_base_ = ["cascade_mask_rcnn_convnext_tiny_coco.py"]
model = dict(backbone=dict(arch="small", drop_path_rate=0.6))
