# RetinaNet on ECA-ResNet-50, 12 epochs of COCO as published (with mmdet): 37.3 box AP. ECA-ResNet-101
# (arch="101", k_sizes=None) gives 39.1.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/retinanet.py",
    "_base_/coco_detection_1x.py",
    "_base_/schedule_1x_sgd.py",
]
model = dict(
    backbone=dict(
        type="opsin.ECAResNet",
        arch="50",
        k_sizes=(3, 3, 7, 7),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=None,
    ),
    neck=dict(
        type="FPN",
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        add_extra_convs="on_input",
        num_outs=5,
    ),
)
# As published, 8 images an iteration on all processes together.
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(enable=False, base_batch_size=8)
