# PoolFormer-S12 with Mask R-CNN, 12 epochs of COCO as published: 37.3 box AP, 34.6 mask AP (authors), from
# weights that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published',
# checkpoint='poolformer_s12.pth.tar').
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance_1x.py",
    "_base_/schedule_1x.py",
]
model = dict(
    backbone=dict(_delete_=True, type="opsin.MetaFormer", arch="poolformer_s12"),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=1e-4))
