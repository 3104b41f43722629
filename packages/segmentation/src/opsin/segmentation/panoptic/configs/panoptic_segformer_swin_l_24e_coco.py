_base_ = ["./panoptic_segformer_r50_24e_coco.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdet.SwinTransformer",
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=7,
        drop_path_rate=0.3,
        out_indices=(1, 2, 3),
        convert_weights=True,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_large_patch4_window7_224_22k.pth",
        ),
    ),
    in_channels=(384, 768, 1536),
    test_cfg=dict(merging=dict(min_score_things=0.3, min_score_stuff=0.3)),
)
