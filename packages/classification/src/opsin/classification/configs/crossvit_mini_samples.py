# A CrossViT of two encoders on the sample data set; its branches see the pictures at 60 and 64 pixels.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="CrossViTClassifier",
        arch=dict(embed_dim=(48, 96), depth=((1, 1, 0), (1, 1, 0)), num_heads=(3, 3), mlp_ratio=(2, 2)),
        img_size=(60, 64),
        num_classes=4,
    ),
)
