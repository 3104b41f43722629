# MoH-ViT-S with 75 % of the heads on ImageNet-1K as published: 300 epochs, total batch 1024, 84.6 top-1. The
# other small model (small_80, 84.7) changes arch alone, base_75 and base_50 also drop_path_rate (0.6). The
# load-balance loss of the routed heads, times 0.01, is logged as loss_balance.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="MoHViTClassifier", arch="small_75", drop_path_rate=0.45, num_classes=1000))
train_dataloader = dict(sampler=dict(_delete_=True, type="RepeatedAugmentation"))

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",  # theirs is float16
    clip_grad=dict(max_norm=1.0),
)
