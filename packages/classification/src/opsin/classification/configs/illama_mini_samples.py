# An iLLaMA of two blocks on the sample data set; its mask is soft for the first half.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="ILLaMAClassifier",
        arch=dict(embed_dim=64, depth=2, num_heads=2),
        mlp_ratio=2,
        img_size=64,
        patch_size=8,
        num_classes=4,
    ),
)
custom_hooks = [dict(type="SoftMaskHook", schedule="linear", cutoff_epoch=10)]
