# iLLaMA-B with UPerNet on ADE20K. The paper reports this task without its recipe, so pyramid and schedule are
# ours (the schedule is ConvNeXt's); the mask is causal throughout. Give the weights with
# model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=illama-base-in1k-81.6.pth
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [768, 768, 768, 768]
model = dict(
    backbone=dict(type="opsin.ILLaMA", arch="base", img_size=512, drop_path_rate=0.4, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",
    paramwise_cfg=dict(decay=0.9),
)
