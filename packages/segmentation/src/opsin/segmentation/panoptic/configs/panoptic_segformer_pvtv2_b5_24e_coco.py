_base_ = ["./panoptic_segformer_r50_24e_coco.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdet.PyramidVisionTransformerV2",
        embed_dims=64,
        num_layers=[3, 6, 40, 3],
        mlp_ratios=(4, 4, 4, 4),
        out_indices=(1, 2, 3),
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b5.pth",
        ),
    ),
    in_channels=(128, 320, 512),
    test_cfg=dict(merging=dict(min_score_things=0.3, min_score_stuff=0.3)),
)
