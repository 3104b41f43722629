# Vim-Ti with UPerNet on ADE20K, as published: 60k iterations at batch 32.
_base_ = ["./_base_/upernet_ade20k.py"]

dims = [192, 192, 192, 192]
model = dict(
    backbone=dict(type="opsin.VisionMamba", arch="tiny", img_size=512, init_cfg=None),
    decode_head=dict(in_channels=dims, channels=192),
    auxiliary_head=dict(in_channels=dims[2]),
)

# In the published runs layer decay 0.92 reaches only the patch and position embeddings (their code looks for
# blocks under another name); every block trains at the full rate.
embedding_lr = 0.92**25
max_iters = 60000
train_dataloader = dict(batch_size=32)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=6000)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            "patch_embed": dict(lr_mult=embedding_lr),
            "pos_embed": dict(lr_mult=embedding_lr, decay_mult=0.0),
            "A_log": dict(decay_mult=0.0),
            "A_b_log": dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=6000))
