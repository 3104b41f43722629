# A FocalNet of 0.2 million parameters on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="FocalNetClassifier",
        arch=dict(depths=(1, 1, 1), embed_dim=32, mlp_ratio=2.0),
        num_classes=4,
    ),
)
