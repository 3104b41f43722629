# The relation in Faster R-CNN with ResNet-50, 12 epochs of COCO. Corners and centres are found on strides 8
# to 64 of the pyramid. The authors publish neither code nor weights of this one.
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
        type="ResNet",
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
    roi_head=dict(
        type="opsin.BVRRoIHead",
        keypoint_head=dict(num_classes=80, in_channels=256, strides=[8, 16, 32, 64]),
        mask_roi_extractor=None,
        mask_head=None,
    ),
)
