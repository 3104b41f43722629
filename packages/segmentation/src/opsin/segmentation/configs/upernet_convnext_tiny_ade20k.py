# ConvNeXt-T with UPerNet on ADE20K, as published: 46.0 mIoU from ImageNet-1K weights. Give these with
# model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=convnext_tiny_1k_224.pth
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [96, 192, 384, 768]
model = dict(
    backbone=dict(
        type="opsin.ConvNeXt", arch="tiny", drop_path_rate=0.4, layer_groups="stage", init_cfg=None
    ),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",
    paramwise_cfg=dict(decay=0.9),
)
