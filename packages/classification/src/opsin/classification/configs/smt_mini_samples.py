# An SMT of five blocks on the sample data set: three that modulate, two that attend.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="SMTClassifier",
        arch=dict(
            embed_dims=(24, 32, 48, 64),
            depths=(1, 1, 2, 1),
            mlp_ratios=(2, 2, 2, 2),
            ca_num_heads=(4, 4, 4, -1),
            sa_num_heads=(-1, -1, 2, 4),
            ca_attentions=(1, 1, 1, 0),
            head_conv=3,
        ),
        num_classes=4,
    ),
)
