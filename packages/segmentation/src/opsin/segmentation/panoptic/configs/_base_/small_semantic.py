# A small Panoptic SegFormer for maps of classes (`semantic`); a config adds its numbers of things and stuff.
dims = (32, 64, 128, 256)
model = dict(
    type="opsin.PanopticSegFormer",
    backbone=dict(
        type="opsin.ConvNeXt",
        arch=dict(depths=(2, 2, 4, 2), dims=dims),
        drop_path_rate=0.1,
        out_indices=(0, 1, 2),  # strides 4, 8, 16, as Mask2Former's masks have 4
    ),
    bbox_head=dict(
        num_queries=40,
        embed_dims=64,
        num_heads=8,
        ffn_dims=256,
        encoder_layers=2,
        location_layers=3,
        thing_blocks=2,
        stuff_blocks=3,
        dropout=0.0,
        rounds=3,
    ),
    test_cfg=dict(max_per_img=40, semantic=True),
)
