# Mask2Former (arXiv 2112.01527) of 64 channels and 3 decoder layers on a small ConvNeXt. A config adds
# num_classes and class_weight: 1 a class, 0.1 for no object.
dims = [32, 64, 128, 256]
dim = 64
ffn = dict(embed_dims=dim, feedforward_channels=4 * dim, num_fcs=2, ffn_drop=0.0)
heads = dict(embed_dims=dim, num_heads=4, batch_first=True)
positions = dict(num_feats=dim // 2, normalize=True)
model = dict(
    type="mmseg.EncoderDecoder",
    data_preprocessor=dict(
        type="mmseg.SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=False,
        pad_val=0,
        seg_pad_val=255,
        size=(256, 256),
        test_cfg=dict(size_divisor=32),
    ),
    backbone=dict(type="opsin.ConvNeXt", arch=dict(depths=(2, 2, 4, 2), dims=dims), drop_path_rate=0.1),
    decode_head=dict(
        type="mmseg.Mask2FormerHead",
        in_channels=dims,
        strides=[4, 8, 16, 32],
        feat_channels=dim,
        out_channels=dim,
        num_queries=40,
        num_transformer_feat_level=3,
        align_corners=False,
        pixel_decoder=dict(
            type="mmdet.MSDeformAttnPixelDecoder",
            num_outs=3,
            norm_cfg=dict(type="GN", num_groups=32),
            act_cfg=dict(type="ReLU"),
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=dict(**heads, num_levels=3, num_points=4, dropout=0.0),
                    ffn_cfg=dict(**ffn, act_cfg=dict(type="ReLU", inplace=True)),
                ),
            ),
            positional_encoding=positions,
        ),
        enforce_decoder_input_project=False,
        positional_encoding=positions,
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=heads,
                cross_attn_cfg=heads,
                ffn_cfg=dict(**ffn, act_cfg=dict(type="ReLU", inplace=True), add_identity=True),
            ),
        ),
        loss_cls=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=False, loss_weight=2.0, reduction="mean"),
        loss_mask=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, reduction="mean", loss_weight=5.0),
        loss_dice=dict(
            type="mmdet.DiceLoss",
            use_sigmoid=True,
            activate=True,
            reduction="mean",
            naive_dice=True,
            eps=1.0,
            loss_weight=5.0,
        ),
        train_cfg=dict(
            num_points=4096,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type="mmdet.HungarianAssigner",
                match_costs=[
                    dict(type="mmdet.ClassificationCost", weight=2.0),
                    dict(type="mmdet.CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
                    dict(type="mmdet.DiceCost", weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type="mmdet.MaskPseudoSampler"),
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
