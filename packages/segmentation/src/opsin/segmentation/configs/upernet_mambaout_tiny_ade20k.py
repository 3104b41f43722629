# MambaOut-T with UPerNet on ADE20K, 160k iterations. The authors report such segmentors and publish no
# configs for them; the schedule is chosen, Swin's. Give their ImageNet-1K weights with
# model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=FILE
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [96, 192, 384, 576]
model = dict(
    backbone=dict(type="opsin.MambaOut", arch="tiny", drop_path_rate=0.2, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
    test_cfg=dict(_delete_=True, mode="whole"),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}),
)
