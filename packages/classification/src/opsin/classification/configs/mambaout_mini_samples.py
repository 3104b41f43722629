# A MambaOut of four blocks on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="MambaOutClassifier",
        arch=dict(depths=(1, 1, 1, 1), dims=(24, 32, 48, 64)),
        num_classes=4,
    ),
)
