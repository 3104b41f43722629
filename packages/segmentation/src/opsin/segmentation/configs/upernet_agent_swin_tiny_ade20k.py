# Agent-Swin-T with UPerNet on ADE20K as published: 46.68 mIoU from ImageNet-1K weights. Give these with
# model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=FILE. Small and base
# change arch (48.08, 48.73).
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [96, 192, 384, 768]
model = dict(
    backbone=dict(type="opsin.AgentSwin", arch="tiny", drop_path_rate=0.2, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
    test_cfg=dict(_delete_=True, mode="whole"),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # no weight decay on norms, window tables and the tables of agents
    paramwise_cfg=dict(
        custom_keys={
            name: dict(decay_mult=0.0)
            for name in (
                "norm",
                "relative_position_bias_table",
                "an_bias",
                "na_bias",
                "ah_bias",
                "aw_bias",
                "ha_bias",
                "wa_bias",
            )
        }
    ),
)
