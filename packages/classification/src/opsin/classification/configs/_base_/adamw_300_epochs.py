# 300 epochs of AdamW at 1e-3 for every 1024 pictures of the batch, five of them warm-up, as DeiT was trained.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    constructor="LayerDecayConstructor",  # decay 1: it exempts what no_weight_decay() names
)
auto_scale_lr = dict(enable=True, base_batch_size=1024)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=5,
        end=300,
        T_max=295,
        convert_to_iter_based=True,
    ),
]
