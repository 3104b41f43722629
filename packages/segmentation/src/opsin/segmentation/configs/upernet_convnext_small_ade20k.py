# ConvNeXt-S with UPerNet on ADE20K, as published: 48.7 mIoU from ImageNet-1K weights.
_base_ = ["./upernet_convnext_tiny_ade20k.py"]

model = dict(backbone=dict(arch="small", drop_path_rate=0.3))
