# UPerNet of 64 channels on a small ConvNeXt; a config adds num_classes.
_base_ = ["./upernet.py"]

dims = [32, 64, 128, 256]
norm_cfg = dict(type="BN")
model = dict(
    data_preprocessor=dict(size=(256, 256), test_cfg=dict(size_divisor=32)),
    backbone=dict(type="opsin.ConvNeXt", arch=dict(depths=(2, 2, 4, 2), dims=dims), drop_path_rate=0.1),
    decode_head=dict(in_channels=dims, channels=64, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=dims[2], channels=64, norm_cfg=norm_cfg),
)
