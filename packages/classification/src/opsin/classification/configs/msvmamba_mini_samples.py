# An MSVMamba of 0.3 million parameters (blocks of release 1) on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="MSVMambaClassifier",
        arch=dict(dims=(32, 48, 64, 96), depths=(1, 1, 1, 1)),
        num_classes=4,
    ),
)
