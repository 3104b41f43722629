# RelationNet++ on RetinaNet with ResNeXt-101-DCN, 20 epochs of COCO as published: 46.5 box AP.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/bvr_x101_dcn.py",
    "_base_/coco_detection_2x_multiscale.py",
]

model = dict(
    neck=dict(add_extra_convs="on_input"),
    bbox_head=dict(
        _delete_=True,
        type="opsin.BVRHead",
        bbox_head=_base_.model.bbox_head,
        keypoint_head=dict(num_classes=80, in_channels=256),
        relation=dict(base_size=(300, 300)),
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.6)),
)
