# RelationNet++ on RetinaNet with ResNet-50, 12 epochs of COCO as published: 38.5 box AP.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/resnet.py",
    "_base_/retinanet.py",
    "_base_/coco_detection_1x.py",
    "_base_/schedule_1x_sgd.py",
]

norm_cfg = dict(type="GN", num_groups=32, requires_grad=True)
stock_head = _base_.model.bbox_head
stock_head.norm_cfg = norm_cfg
model = dict(
    type="opsin.RelationNet2",
    backbone=dict(
        depth=50,
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
        **_base_.resnet,
    ),
    neck=dict(
        type="FPN",
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        add_extra_convs="on_input",
        num_outs=5,
        norm_cfg=norm_cfg,
    ),
    bbox_head=dict(
        _delete_=True,
        type="opsin.BVRHead",
        bbox_head=stock_head,
        keypoint_head=dict(num_classes=80, in_channels=256, norm_cfg=norm_cfg),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
