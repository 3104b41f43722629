# Mask R-CNN on ResNet-101 for the twelve classes of PIDray, with selective dense attention after the pyramid.
_base_ = ["opsin.detection::mask_rcnn_convnext.py"]

roi_align = dict(sampling_ratio=2)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        _delete_=True,
        type="ResNet",
        depth=101,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet101"),
    ),
    neck=dict(type="opsin.SDAFPN", in_channels=[256, 512, 1024, 2048]),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=roi_align),
        bbox_head=dict(num_classes=12),
        mask_roi_extractor=dict(roi_layer=roi_align),
        mask_head=dict(num_classes=12),
    ),
)
