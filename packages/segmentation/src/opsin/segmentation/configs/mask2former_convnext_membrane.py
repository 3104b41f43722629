# Mask2Former on a small ConvNeXt, from scratch, on cell membranes.
_base_ = ["./_base_/mask2former_small.py", "./_base_/membrane.py"]

model = dict(decode_head=dict(num_classes=2, loss_cls=dict(class_weight=[1.0, 1.0, 0.1])))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
