# SHViT-S1 on ImageNet-1K as published: 300 epochs and ten more at the lowest rate, total batch 2048, 72.8
# top-1. The other variants change arch and weight_decay (S2 0.032, S3 0.035, S4 0.03); S4 is trained at 256
# pixels. The authors clip no gradient of the head.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adaptive_clip_300_epochs.py"]

model = dict(network=dict(type="SHViTClassifier", arch="s1", num_classes=1000))
train_dataloader = dict(sampler=dict(_delete_=True, type="RepeatedAugmentation"))

train_cfg = dict(max_epochs=310)
