# DaViT-T with UPerNet on ADE20K, as published: 46.3 mIoU from ImageNet-1K weights. Give these with
# model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=FILE
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [96, 192, 384, 768]
model = dict(
    backbone=dict(type="opsin.DaViT", arch="tiny", drop_path_rate=0.3, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
    test_cfg=dict(_delete_=True, mode="whole"),
)

optim_wrapper = dict(
    type="OptimWrapper",
    # weight decay on all parameters, norms and biases too, as published
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
)
