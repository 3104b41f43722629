# MambaOut-T with Mask R-CNN, 12 epochs of COCO. The authors report such detectors and publish no configs
# for them; the schedule is chosen, Swin's. Give their ImageNet-1K weights with
# model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_1x.py",
]
model = dict(
    backbone=dict(_delete_=True, type="opsin.MambaOut", arch="tiny", drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 576]),
)
# The decay of its learning rates is 1: it only keeps weight decay off 1-D tensors.
optim_wrapper = dict(constructor="opsin.LayerDecayConstructor")
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 1000
