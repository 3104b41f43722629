# A TiC of 0.33 million parameters on the sample data set; its maps have 16, 8, 4 and 2 cells a side.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="TiCClassifier",
        arch=dict(
            dims=(32, 48, 64, 96),
            depths=(1, 2, 1, 1),
            num_heads=(2, 3, 4, 6),
            kernel_sizes=(5, 3, 3, 3),
        ),
        num_classes=4,
    ),
)
