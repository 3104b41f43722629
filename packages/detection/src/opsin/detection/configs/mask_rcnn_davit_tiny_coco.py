# DaViT-T with Mask R-CNN, 12 epochs of COCO as published: 45.0 box AP, 41.1 mask AP (authors), from weights
# that they pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
# Their 36 epochs (47.4, 42.9) use drop_path_rate 0.2 and milestones 27 and 33.
_base_ = [
    "opsin::runtime.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
]
task = "detection"
default_scope = "mmdet"
custom_hooks = [dict(type="opsin.CheckClassCount")]
model = dict(backbone=dict(_delete_=True, type="opsin.DaViT", arch="tiny", drop_path_rate=0.1))

max_epochs = 12
optim_wrapper = dict(
    type="OptimWrapper",
    # weight decay on all parameters, norms and biases too, as published
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=max_epochs, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=16)
