# The detector of Vim (simple feature pyramid on one map of the residual stream), small enough to learn the
# sample data from scratch on a CPU.
_base_ = ["mask_rcnn_convnext_samples.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="opsin.VisionMamba",
        arch=dict(embed_dim=64, depth=4, patch_size=8),
        img_size=160,
        out_indices=(3,),
        fpn=False,
        use_residual_as_feature=True,
        last_layer_process="add",
        rope=True,
        rope_residual=True,
    ),
    neck=dict(
        _delete_=True,
        type="opsin.SimpleFeaturePyramid",
        in_channels=64,
        out_channels=64,
        scales=(2, 1, 0.5),
        extra_levels=2,
        stride=8,
    ),
    rpn_head=dict(anchor_generator=dict(strides=[4, 8, 16, 32, 64])),
)
optim_wrapper = dict(constructor="opsin.LayerDecayConstructor")  # exempts A_log from weight decay
