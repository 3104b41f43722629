# A Vim of two blocks on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="VisionMambaClassifier",
        arch=dict(embed_dim=64, depth=2, patch_size=8),
        img_size=64,
        num_classes=4,
    ),
)
