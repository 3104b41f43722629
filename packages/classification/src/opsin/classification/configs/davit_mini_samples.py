# A DaViT of three pairs of blocks on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="DaViTClassifier",
        arch=dict(
            depths=(1, 1, 1),
            embed_dims=(32, 64, 96),
            num_heads=(2, 4, 6),
            window_size=4,
            overlapped_patch=False,
        ),
        num_classes=4,
    ),
)
