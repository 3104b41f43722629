# ViTAEv2-S with varied-size windows and Mask R-CNN, 12 epochs of COCO as published: 45.9 box AP, 41.4 mask
# AP (authors), from weights that they pretrained on ImageNet-1K:
# model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE). Their 36 epochs (48.1, 42.9) use
# milestones 27 and 33; the 48M variant takes drop_path_rate 0.35.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_1x.py",
]
sync_bn = "torch"  # where several processes train
model = dict(
    backbone=dict(_delete_=True, type="opsin.ViTAEv2VSA", arch="small", drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(norm=dict(decay_mult=0.0), relative_position_bias_table=dict(decay_mult=0.0))
    )
)
