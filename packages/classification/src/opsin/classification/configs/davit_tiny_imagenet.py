# DaViT-T on ImageNet-1K as published: 300 epochs and ten more at the lowest rate, total batch 1024, 82.8
# top-1. The paper raises drop_path_rate for small (0.2) and base (0.4).
_base_ = ["./_base_/imagenet_224_crop_90.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="DaViTClassifier", arch="tiny", drop_path_rate=0.1, num_classes=1000))

optim_wrapper = dict(type="AmpOptimWrapper", clip_grad=dict(max_norm=1.0))
train_cfg = dict(max_epochs=310)
