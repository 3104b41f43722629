# A masked ViT of two blocks on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="MaskedViTClassifier",
        arch=dict(embed_dim=64, depth=3, num_heads=4, head_dim=16, mlp_ratio=2.0),
        img_size=64,
        mask="gmm",
        num_classes=4,
    ),
)
