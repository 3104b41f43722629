# SMT-S with Mask R-CNN, 36 epochs of COCO: 49.0 box AP, 43.4 mask AP (authors), from weights that they
# pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE). The only
# such schedule that they publish is the base model's (drop_path_rate 0.3 or 0.2, learning rate 2e-4, 1e-4
# in a comment); for this one it is taken with 1e-4.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_3x.py",
]
sync_bn = "torch"  # where several processes train
model = dict(
    backbone=dict(_delete_=True, type="opsin.SMT", arch="small", drop_path_rate=0.2),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}),
)
