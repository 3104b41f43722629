# MSVMamba-Micro with UPerNet on ADE20K, as published: 45.1 mIoU from ImageNet-1K weights. Give these with
# model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=vssm_micro_ms_e300.pth
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [64, 128, 256, 512]
model = dict(
    backbone=dict(type="opsin.MSVMamba", arch="micro", drop_path_rate=0.2, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    constructor="opsin.LayerDecayConstructor",  # its decay is 1: what no_weight_decay() names is exempt
)
