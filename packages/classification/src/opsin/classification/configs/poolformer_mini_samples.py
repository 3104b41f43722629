# A PoolFormer of 0.2 million parameters on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="MetaFormerClassifier",
        arch=dict(
            layers=(1, 1, 1),
            embed_dims=(32, 64, 96),
            in_patch_size=5,
            in_stride=2,  # pooling alone tells fine textures badly apart on coarse maps
            layer_scale_init_value=1.0,  # 1e-5 needs more steps than this to grow
        ),
        num_classes=4,
    ),
)
