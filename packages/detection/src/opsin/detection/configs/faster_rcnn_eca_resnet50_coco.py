# Faster R-CNN on ECA-ResNet-50, 12 epochs of COCO as published (with mmdet): 38.0 box AP. ECA-ResNet-101
# (arch="101", k_sizes=None) gives 40.3. The published file's name says that all filters have length 5.
_base_ = [
    "opsin::runtime.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_detection_1x.py",
    "_base_/schedule_1x_sgd.py",
]
task = "detection"
default_scope = "mmdet"
custom_hooks = [dict(type="opsin.CheckClassCount")]
model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(pad_mask=False),
    backbone=dict(
        _delete_=True,
        type="opsin.ECAResNet",
        arch="50",
        k_sizes=(5, 5, 5, 5),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=None,
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)
# As published, 8 images an iteration on all processes together.
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(enable=False, base_batch_size=8)
