# SDANet as published, on Cascade Mask R-CNN with ResNet-101: box AP on easy / hard / hidden about
# 71.2 / 64.2 / 49.5. Without the attention: model.neck.type=FPN.
_base_ = ["mask_rcnn_r101_sdanet_pidray.py", "opsin.detection::cascade.py"]


def _box_head(stds):
    return dict(
        type="Shared2FCBBoxHead",
        in_channels=256,
        fc_out_channels=1024,
        roi_feat_size=7,
        num_classes=12,
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=stds),
        reg_class_agnostic=True,
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
    )


model = dict(
    type="opsin.SDACascadeRCNN",
    rpn_head=_base_.cascade.rpn_head,
    roi_head=dict(
        bbox_head=[_box_head([s, s, 2 * s, 2 * s]) for s in (0.1, 0.05)]
        + [_box_head([0.033, 0.033, 0.067, 0.067])],
        **_base_.cascade.roi_head,
    ),
    train_cfg=_base_.cascade.train_cfg,
)
