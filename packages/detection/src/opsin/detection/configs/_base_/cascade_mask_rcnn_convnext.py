# Cascade Mask R-CNN on ConvNeXt as its authors train it on COCO: three box heads of four convolutions and
# one linear layer with synchronised batch norm and GIoU loss.
_base_ = ["mask_rcnn_convnext.py", "cascade.py"]


def _box_head(stds):
    return dict(
        type="ConvFCBBoxHead",
        num_shared_convs=4,
        num_shared_fcs=1,
        in_channels=256,
        conv_out_channels=256,
        fc_out_channels=1024,
        roi_feat_size=7,
        num_classes=80,
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=stds),
        reg_class_agnostic=False,
        reg_decoded_bbox=True,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
    )


model = dict(
    type="CascadeRCNN",
    rpn_head=_base_.cascade.rpn_head,
    roi_head=dict(
        bbox_head=[_box_head([s, s, 2 * s, 2 * s]) for s in (0.1, 0.05, 0.033)],
        **_base_.cascade.roi_head,
    ),
    train_cfg=_base_.cascade.train_cfg,
)
