# Agent-PVT-T with Semantic FPN on ADE20K, as published: 40.18 mIoU after 40k iterations (of 32 images, as
# PVT's recipe has it), from ImageNet-1K weights: model.backbone.init_cfg.type=opsin.Published
# model.backbone.init_cfg.checkpoint=FILE. Small, medium and large change arch (44.18, 44.30, 46.52).
_base_ = ["./fpn_poolformer_s12_ade20k.py"]

model = dict(
    backbone=dict(_delete_=True, type="opsin.AgentPVT", arch="tiny", drop_path_rate=0.1, init_cfg=None)
)
