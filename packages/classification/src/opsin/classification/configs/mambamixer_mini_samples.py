# A ViM2 of 0.4 million parameters on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="ViM2Classifier",
        arch=dict(dim=16, depths=(1, 1, 1, 1), channel_mixer="selective"),
        num_classes=4,
    ),
)
