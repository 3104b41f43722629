# EfficientViT-M0 on ImageNet-1K as published: 300 epochs, total batch 2048, 63.2 top-1. The other variants
# change arch only. The authors clip no gradient of the head.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adaptive_clip_300_epochs.py"]

model = dict(network=dict(type="EfficientViTClassifier", arch="m0", num_classes=1000))
train_dataloader = dict(sampler=dict(_delete_=True, type="RepeatedAugmentation"))
