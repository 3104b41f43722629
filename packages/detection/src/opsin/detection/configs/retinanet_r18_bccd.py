# Stock mmdet's ResNet-18 in the place of ConvNeXt, trained equally from scratch: the comparison of
# benchmarks/real_data.md.
_base_ = ["retinanet_convnext_bccd.py"]
model = dict(
    backbone=dict(
        _delete_=True,
        type="ResNet",
        depth=18,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        style="pytorch",
    ),
    neck=dict(in_channels=[128, 256, 512]),
)
