# An SHViT of 0.3 million parameters on the sample data set; its maps have 4, 2 and 1 cells a side.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="SHViTClassifier",
        arch=dict(dims=(48, 64, 80), depths=(1, 1, 1), partial_dims=(12, 16, 20)),
        num_classes=4,
    ),
)
