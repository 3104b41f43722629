# An EfficientViT of 0.3 million parameters on the sample data set; its maps have 4, 2 and 1 cells a side.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="EfficientViTClassifier",
        arch=dict(dims=(48, 64, 80), depths=(1, 1, 1), num_heads=(3, 4, 4), kernels=(5, 5, 3, 3)),
        img_size=64,
        num_classes=4,
    ),
)
