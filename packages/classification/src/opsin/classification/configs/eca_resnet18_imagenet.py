# ECA-ResNet-18 on ImageNet-1K as published: 100 epochs, total batch 256, 70.92 top-1. The other variants
# change arch: 34 (74.21), 50 (77.42), 101 (78.65), 152 (78.92).
_base_ = ["./_base_/imagenet_224_plain.py"]

model = dict(network=dict(type="ECAResNetClassifier", arch="18", num_classes=1000))

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4))
auto_scale_lr = dict(enable=True, base_batch_size=256)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
param_scheduler = [dict(type="StepLR", by_epoch=True, step_size=30, gamma=0.1)]
