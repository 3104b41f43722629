# PoolFormer-S12 with RetinaNet, 12 epochs of COCO as published: 36.2 box AP (authors), from weights that they
# pretrained on ImageNet-1K: model.backbone.init_cfg=dict(type='opsin.Published',
# checkpoint='poolformer_s12.pth.tar').
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/retinanet.py",
    "_base_/coco_detection_1x.py",
    "_base_/schedule_1x.py",
]
model = dict(
    # the pyramid begins at stride 8; a norm for stride 4 would get no gradient
    backbone=dict(type="opsin.MetaFormer", arch="poolformer_s12", out_indices=(1, 2, 3)),
    neck=dict(
        type="FPN",
        in_channels=[128, 320, 512],
        out_channels=256,
        add_extra_convs="on_input",
        num_outs=5,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=1e-4))
