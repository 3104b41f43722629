# ECA-MobileNetV2 on ImageNet-1K as published: 400 epochs, total batch 96, 72.56 top-1.
_base_ = ["./_base_/imagenet_224_plain.py"]

model = dict(network=dict(type="ECAMobileNetV2Classifier", num_classes=1000))

optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="SGD", lr=0.045, momentum=0.9, weight_decay=4e-5)
)
train_dataloader = dict(batch_size=96)
auto_scale_lr = dict(enable=True, base_batch_size=96)
train_cfg = dict(by_epoch=True, max_epochs=400, val_interval=1)
param_scheduler = [dict(type="ExponentialLR", by_epoch=True, gamma=0.98)]
