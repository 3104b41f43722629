# MAYOR on a ConvNeXt small enough to learn the sample data from scratch on a CPU.
_base_ = ["mayor_r50_fpn.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="opsin.ConvNeXt",
        arch=dict(depths=(1, 1, 2, 1), dims=(24, 48, 64, 96)),
        out_indices=(0, 1, 2, 3),
        layer_scale_init_value=1.0,
    ),
    neck=dict(
        in_channels=[24, 48, 64, 96],
        out_channels=32,
        norm_cfg=dict(type="GN", num_groups=8, requires_grad=True),
    ),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=128),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(
            in_channels=32,
            conv_out_channels=32,
            num_convs=2,
            decoder=dict(reduce_channels=16, hidden=256),
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=300, max_per_img=150), rcnn=dict(sampler=dict(num=64, pos_fraction=0.5))
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150)),
)
