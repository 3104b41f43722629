# MaxViT-T with UPerNet on ADE20K. Not published: the schedule is that of ConvNeXt's authors. Crops of 512 are
# no multiple of the 7x7 windows and grid; what is added to fit them is masked.
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [64, 128, 256, 512]
model = dict(
    backbone=dict(type="opsin.MaxViT", arch="tiny", drop_path_rate=0.2, out_norm=True, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",
    paramwise_cfg=dict(decay=0.9),
)
