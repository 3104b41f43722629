# UPerNet on a small ConvNeXt, from scratch, on cell membranes.
_base_ = ["./_base_/upernet_small.py", "./_base_/membrane.py"]

model = dict(decode_head=dict(num_classes=2), auxiliary_head=dict(num_classes=2))
