# RelationNet++ on FCOS with ResNeXt-101-DCN, 20 epochs of COCO as published: 48.7 box AP.
_base_ = ["retinanet_x101_dcn_bvr_coco.py"]

model = dict(
    neck=dict(add_extra_convs="on_output"),
    bbox_head=dict(
        bbox_head=dict(
            _delete_=True,
            type="FCOSHead",
            num_classes=80,
            in_channels=256,
            feat_channels=256,
            stacked_convs=4,
            strides=[8, 16, 32, 64, 128],
            norm_on_bbox=True,
            centerness_on_reg=True,
            center_sampling=True,
            dcn_on_last_conv=True,
            conv_bias=True,
            norm_cfg=None,
            loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
            loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
            loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        ),
        keypoint_head=dict(logits_convs=0),
    ),
)
optim_wrapper = dict(clip_grad=dict(max_norm=35))
