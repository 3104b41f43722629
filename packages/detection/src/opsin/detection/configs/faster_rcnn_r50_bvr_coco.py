# The relation in Faster R-CNN with ResNet-50, 12 epochs of COCO. Corners and centres are found on strides 8
# to 64 of the pyramid. The authors publish neither code nor weights of this one.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/resnet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_detection_1x.py",
    "_base_/schedule_1x_sgd.py",
]

model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(pad_mask=False),
    backbone=dict(
        _delete_=True,
        depth=50,
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
        **_base_.resnet,
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
    roi_head=dict(
        type="opsin.BVRRoIHead",
        keypoint_head=dict(num_classes=80, in_channels=256, strides=[8, 16, 32, 64]),
        mask_roi_extractor=None,
        mask_head=None,
    ),
)
