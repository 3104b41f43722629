# MambaOut-T with Mask R-CNN, 12 epochs of COCO. The authors report such detectors and publish no configs
# for them; the schedule is chosen, Swin's. Give their ImageNet-1K weights with
# model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "opsin::runtime.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
]
task = "detection"
default_scope = "mmdet"
custom_hooks = [dict(type="opsin.CheckClassCount")]
model = dict(
    backbone=dict(_delete_=True, type="opsin.MambaOut", arch="tiny", drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 576]),
)

max_epochs = 12
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="opsin.LayerDecayConstructor",  # its decay is 1: it only keeps weight decay off 1-D tensors
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", begin=0, end=max_epochs, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=16)
