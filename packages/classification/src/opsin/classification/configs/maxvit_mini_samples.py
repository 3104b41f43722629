# A MaxViT of three blocks on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="MaxViTClassifier",
        arch=dict(stem_width=16, depths=(1, 1, 1), embed_dims=(24, 40, 64)),
        window_size=4,
        head_dim=8,
        bn_momentum=0.1,  # the published 0.01 needs more steps than this to follow
        num_classes=4,
    ),
)
