# A VAN of four blocks on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="VANClassifier",
        arch=dict(embed_dims=(32, 48, 64, 96), depths=(1, 1, 1, 1), mlp_ratios=(4, 4, 4, 4)),
        num_classes=4,
    ),
)
