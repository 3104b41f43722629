# A ConvNeXt of 0.2 million parameters on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="ConvNeXtClassifier",
        arch=dict(depths=(1, 1, 1, 1), dims=(32, 48, 64, 96)),
        num_classes=4,
        layer_scale_init_value=1.0,  # 1e-6 needs more steps than this to grow
    ),
)
