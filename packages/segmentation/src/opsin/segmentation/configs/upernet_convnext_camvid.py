# UPerNet on a small ConvNeXt, from scratch, on CamVid.
_base_ = ["./_base_/upernet_small.py", "./_base_/camvid.py"]

model = dict(decode_head=dict(num_classes=11), auxiliary_head=dict(num_classes=11))
