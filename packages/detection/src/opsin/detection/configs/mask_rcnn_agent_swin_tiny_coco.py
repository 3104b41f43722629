# Agent-Swin-T with Mask R-CNN, 12 epochs of COCO as published: 44.6 box AP, 40.7 mask AP (authors), from
# weights that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published',
# checkpoint=FILE). Small changes arch (47.2, 42.7).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_1x.py",
]
model = dict(
    backbone=dict(_delete_=True, type="opsin.AgentSwin", arch="tiny", drop_path_rate=0.1),
)
# no weight decay on norms, window tables and the tables of agents
undecayed = ["norm", "relative_position_bias_table"] + [
    f"{kind}_bias" for kind in ("an", "na", "ah", "aw", "ha", "wa")
]
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={name: dict(decay_mult=0.0) for name in undecayed}))
