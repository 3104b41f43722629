# FocalNet-T with the small receptive field on ImageNet-1K as published: 300 epochs, total batch 1024, 82.1
# top-1. The other variants change arch and drop_path_rate (small 0.3, base 0.5). The config in the authors'
# repository has a fifth of this rate and five epochs of warm-up, which looks like fine-tuning; these are the
# paper's.
_base_ = ["./_base_/imagenet_224.py"]

model = dict(network=dict(type="FocalNetClassifier", arch="tiny_srf", drop_path_rate=0.2, num_classes=1000))

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    constructor="LayerDecayConstructor",  # its decay is 1: it only keeps weight decay off 1-D tensors
)
auto_scale_lr = dict(enable=True, base_batch_size=1024)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=20,
        end=300,
        T_max=280,
        convert_to_iter_based=True,
    ),
]
