# An ECA-ResNet of 0.13 million parameters on the sample data set; filter lengths follow the paper's rule.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="ECAResNetClassifier",
        arch=dict(
            block="basic", depths=(1, 1, 1, 1), widths=(16, 32, 48, 64), k_sizes=(None, None, None, None)
        ),
        num_classes=4,
    ),
)
