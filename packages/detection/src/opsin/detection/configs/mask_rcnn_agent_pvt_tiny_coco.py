# Agent-PVT-T with Mask R-CNN, 12 epochs of COCO as published: 41.4 box AP, 38.7 mask AP (authors), from
# weights that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published',
# checkpoint=FILE). Small, medium and large change arch (44.5, 45.9, 46.9 box AP).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance_1x.py",
    "_base_/schedule_1x.py",
]
model = dict(
    backbone=dict(_delete_=True, type="opsin.AgentPVT", arch="tiny", drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=1e-4))
