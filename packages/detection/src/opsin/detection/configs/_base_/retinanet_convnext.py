# RetinaNet on a ConvNeXt small enough to learn from scratch on a CPU; what suits a data set's object sizes
# (anchors) and classes is set by the config that inherits this.
_base_ = ["retinanet.py"]

dims = (32, 64, 128, 192)
norm_cfg = dict(type="GN", num_groups=16, requires_grad=True)

model = dict(
    # Zeros would leave the untrained stem's LayerNorm without variance, and its gradient 1000 times too
    # large.
    data_preprocessor=dict(pad_value=1.0),
    backbone=dict(
        type="opsin.ConvNeXt",
        arch=dict(depths=(2, 2, 3, 2), dims=dims),
        out_indices=(1, 2, 3),
        layer_scale_init_value=1.0,
    ),
    neck=dict(type="FPN", in_channels=list(dims[1:]), out_channels=64, num_outs=3, norm_cfg=norm_cfg),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(octave_base_scale=3, ratios=[1.0, 1.8], strides=[8, 16, 32]),
        # The head's bias starts at the log odds of a rare object, as focal loss needs it (RetinaNet, section
        # 3.3).
        loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=2.0),
        reg_decoded_bbox=True,
    ),
)
