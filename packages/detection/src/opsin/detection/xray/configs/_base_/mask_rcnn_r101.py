# Mask R-CNN on ResNet-101 for the twelve classes of PIDray, with selective dense attention after the pyramid.
_base_ = ["opsin.detection::mask_rcnn_convnext.py", "opsin.detection::resnet.py"]

roi_align = dict(sampling_ratio=2)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        _delete_=True,
        depth=101,
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet101"),
        **_base_.resnet,
    ),
    neck=dict(type="opsin.SDAFPN", in_channels=[256, 512, 1024, 2048]),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=roi_align),
        bbox_head=dict(num_classes=12),
        mask_roi_extractor=dict(roi_layer=roi_align),
        mask_head=dict(num_classes=12),
    ),
)
