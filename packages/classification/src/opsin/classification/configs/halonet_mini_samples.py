# A HaloNet with 3x3 convolutions in the first stage and halo attention in the others, of 0.14 million
# parameters, on the sample data set; its maps have 16, 8, 4 and 2 cells a side.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="HaloNetClassifier",
        arch=dict(
            stem="tiered",
            blocks=("B", "A", "A", "A"),
            widths=(32, 32, 48, 64),
            out_widths=(64, 96, 128, 160),
            block_size=4,
            halo_size=1,
            num_heads=(4, 4, 4, 4),
        ),
        num_classes=4,
    ),
)
