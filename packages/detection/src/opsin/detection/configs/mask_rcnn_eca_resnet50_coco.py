# Mask R-CNN on ECA-ResNet-50, 12 epochs of COCO as published (with mmdet): 39.0 box AP, 35.6 mask AP, from
# weights that the authors pretrained on ImageNet-1K:
# model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance_1x.py",
    "_base_/schedule_1x_sgd.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="opsin.ECAResNet",
        arch="50",
        k_sizes=(3, 3, 7, 7),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=None,
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
# As published, 8 images an iteration on all processes together.
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(enable=False, base_batch_size=8)
