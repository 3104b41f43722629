# Stage 1 in about a minute and a half of one core on the sample data set (opsin samples tracking DIR).
_base_ = ["./_base_/stage1.py"]
data_root = "data/tracking_samples"
model = dict(
    network=dict(
        type="opsin.MixFormer",
        backbone=dict(type="opsin.MixCvT", dims=(16, 32, 64), depths=(1, 1, 2), num_heads=(1, 2, 4)),
        head=dict(type="opsin.CornerHead", channels=64),
    ),
    crops=dict(template_size=64, search_size=128, search_factor=4.0),
    update=dict(interval=5, size=1),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        sources=[dict(layout="got10k", split="train")],
        samples_per_epoch=1600,
        template_size=64,
        search_size=128,
        search_factor=4.0,
        centre_jitter=2.5,
        scale_jitter=0.25,
    ),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
protocols = dict(_delete_=True)
train_cfg = dict(max_epochs=4, val_interval=4)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(custom_keys={"network.backbone": dict(lr_mult=1.0)}),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=4, eta_min=1e-5, convert_to_iter_based=True)]
