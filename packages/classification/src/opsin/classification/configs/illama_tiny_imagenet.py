# iLLaMA-T on ImageNet-1K as published: 300 epochs, total batch 4096, 75.0 top-1. Small has mixup and cutmix
# 0.5, drop_path_rate=0.1 and schedule="linear"; base has mixup 0.95, cutmix 1.0, drop_path_rate=0.4,
# schedule="linear", cutoff_epoch=25 and 50 epochs of warm-up. Validation is causal here during training;
# the authors' has the mask of the training.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs.py"]

model = dict(
    network=dict(type="ILLaMAClassifier", arch="tiny", num_classes=1000),
    batch_augmentation=dict(mixup=0.1, cutmix=0.1),
)
custom_hooks = [dict(type="SoftMaskHook", schedule="constant", cutoff_epoch=50)]

optim_wrapper = dict(optimizer=dict(lr=4e-3))
auto_scale_lr = dict(base_batch_size=4096)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=5,
        end=300,
        T_max=295,
        convert_to_iter_based=True,
    ),
]
