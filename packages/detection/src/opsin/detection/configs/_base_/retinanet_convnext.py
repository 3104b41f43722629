# RetinaNet on a ConvNeXt small enough to learn from scratch on a CPU; what suits a data set's object sizes
# (anchors) and classes is set by the config that inherits this.
dims = (32, 64, 128, 192)
norm_cfg = dict(type="GN", num_groups=16, requires_grad=True)

model = dict(
    type="RetinaNet",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=False,
        pad_size_divisor=32,
        # Zeros would leave the untrained stem's LayerNorm without variance, and its gradient 1000 times too
        # large.
        pad_value=1.0,
    ),
    backbone=dict(
        type="opsin.ConvNeXt",
        arch=dict(depths=(2, 2, 3, 2), dims=dims),
        out_indices=(1, 2, 3),
        layer_scale_init_value=1.0,
    ),
    neck=dict(type="FPN", in_channels=list(dims[1:]), out_channels=64, num_outs=3, norm_cfg=norm_cfg),
    bbox_head=dict(
        type="RetinaHead",
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(
            type="AnchorGenerator",
            octave_base_scale=3,
            scales_per_octave=3,
            ratios=[1.0, 1.8],
            strides=[8, 16, 32],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        # The head's bias starts at the log odds of a rare object, as focal loss needs it (RetinaNet, section
        # 3.3).
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        reg_decoded_bbox=True,
    ),
    train_cfg=dict(
        assigner=dict(
            type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1
        ),
        sampler=dict(type="PseudoSampler"),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=100,
    ),
)
