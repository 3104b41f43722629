# ViTAE v2 with varied-size windows, three stages of one normal cell, on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="ViTAEv2VSAClassifier",
        arch=dict(
            embed_dims=(8, 16, 24),
            token_dims=(24, 48, 64),
            nc_depth=(1, 1, 1),
            nc_heads=(2, 4, 4),
            rc_heads=(2, 2, 4),
            nc_group=(4, 8, 16),
            rc_group=(1, 8, 8),
            window_size=4,
            mlp_ratio=2,
            downsample_ratios=(4, 2, 2),
            kernel_sizes=(7, 3, 3),
            dilations=((1, 2), (1, 2), (1, 2)),
        ),
        num_classes=4,
    ),
)
