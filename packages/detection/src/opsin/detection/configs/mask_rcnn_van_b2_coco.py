# VAN-B2 with Mask R-CNN, 12 epochs of COCO. The authors publish no detection configs; optimiser and
# schedule are chosen, as is usual for backbones of this size. Give their ImageNet-1K weights with
# model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_1x.py",
]
sync_bn = "torch"  # where several processes train
model = dict(
    backbone=dict(_delete_=True, type="opsin.VAN", arch="b2", drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
# The decay of its learning rates is 1: it only keeps weight decay off 1-D tensors.
optim_wrapper = dict(optimizer=dict(lr=2e-4), constructor="opsin.LayerDecayConstructor")
