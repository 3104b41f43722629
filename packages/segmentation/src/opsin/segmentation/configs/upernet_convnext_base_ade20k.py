# ConvNeXt-B with UPerNet on ADE20K, as published: 49.1 mIoU from ImageNet-1K weights.
_base_ = ["./upernet_convnext_tiny_ade20k.py"]

dims = [128, 256, 512, 1024]
model = dict(
    backbone=dict(arch="base"),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
)
