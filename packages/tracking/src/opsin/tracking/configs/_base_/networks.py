# The published networks; a config takes one. Stage 2 adds the score head and fixes the box head's norms.
networks = dict(
    cvt=dict(type="opsin.MixFormer", backbone=dict(type="opsin.MixCvT"), head=dict(type="opsin.CornerHead")),
    cvt_large=dict(
        type="opsin.MixFormer",
        backbone=dict(
            type="opsin.MixCvT",
            dims=(192, 768, 1024),
            depths=(2, 2, 12),
            num_heads=(3, 12, 16),
            drop_path_rates=(0.0, 0.0, 0.3),
            frozen_stages=1,
        ),
        head=dict(type="opsin.CornerHead"),
    ),
    vit=dict(
        type="opsin.MixFormer", backbone=dict(type="opsin.MixViT"), head=dict(type="opsin.PyramidCornerHead")
    ),
    vit_large=dict(
        type="opsin.MixFormer",
        backbone=dict(
            type="opsin.MixViT", dim=1024, depth=24, num_heads=16, search_size=384, template_size=192
        ),
        head=dict(type="opsin.PyramidCornerHead"),
    ),
    convmae=dict(
        type="opsin.MixFormer",
        backbone=dict(type="opsin.MixConvMAE"),
        head=dict(type="opsin.PyramidCornerHead"),
    ),
    convmae_large=dict(
        type="opsin.MixFormer",
        backbone=dict(
            type="opsin.MixConvMAE",
            dims=(384, 768, 1024),
            depths=(2, 2, 20),
            num_heads=16,
            search_size=384,
            template_size=192,
        ),
        head=dict(type="opsin.PyramidCornerHead"),
    ),
)
