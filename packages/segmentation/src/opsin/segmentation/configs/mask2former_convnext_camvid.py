# Mask2Former on a small ConvNeXt, from scratch, on CamVid.
_base_ = ["./_base_/mask2former_small.py", "./_base_/camvid.py"]

model = dict(decode_head=dict(num_classes=11, loss_cls=dict(class_weight=[1.0] * 11 + [0.1])))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
