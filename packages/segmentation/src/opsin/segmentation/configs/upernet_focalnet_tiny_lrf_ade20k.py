# FocalNet-T (LRF) with UPerNet on ADE20K, as published: 46.8 mIoU from ImageNet-1K weights. Give these with
# model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=focalnet_tiny_lrf.pth
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [96, 192, 384, 768]
model = dict(
    backbone=dict(type="opsin.FocalNet", arch="tiny_lrf", focal_windows=9, drop_path_rate=0.3, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
    test_cfg=dict(_delete_=True, mode="whole"),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
)
