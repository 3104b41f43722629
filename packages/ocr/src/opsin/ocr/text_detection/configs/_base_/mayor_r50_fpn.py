# MAYOR: Mask R-CNN on ResNet-50 with FPN, one anchor a position, adaptive assignment, an MLP mask decoder and
# whole instances as mask targets. Another backbone: model.backbone and the neck's in_channels.
_base_ = ["opsin.detection::mask_rcnn_convnext.py", "opsin.detection::resnet.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        depth=50,
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
        **{**_base_.resnet, "norm_cfg": dict(type="BN", requires_grad=False)},
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
    rpn_head=dict(
        type="opsin.TextRPNHead",
        anchor_generator=dict(ratios=[1.0]),
        loss_bbox=dict(_delete_=True, type="SmoothL1Loss", beta=1 / 9, loss_weight=1.0),
    ),
    roi_head=dict(
        type="opsin.TextRoIHead",
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(
            num_classes=1,
            reg_class_agnostic=True,
            loss_bbox=dict(_delete_=True, type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
        ),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(
            _delete_=True,
            type="opsin.TextMaskHead",
            in_channels=256,
            conv_out_channels=256,
            num_convs=4,
            decoder=dict(type="opsin.MLPMaskDecoder", reduce_channels=32, hidden=1024),
            target_frame="gt_box",
        ),
    ),
    train_cfg=dict(
        # what is centred outside the image is left out by TextRPNHead itself
        rpn=dict(
            assigner=dict(_delete_=True, type="opsin.AdaptiveLabelAssigner", k=9, n_min=3, ignore_iof=0.5)
        ),
        rpn_proposal=dict(nms_pre=2000, max_per_img=2000),
        rcnn=dict(assigner=dict(match_low_quality=False, ignore_iof_thr=0.5)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=2000, max_per_img=1000),
        rcnn=dict(
            score_thr=0.5,
            max_per_img=100,
            mask_nms_iou=0.5,
            rectangles=False,  # True: the smallest rectangle around each outline
        ),
    ),
)
