# MAYOR on a ResNet-18 of a quarter of the width, small enough to learn the sample data from scratch on a CPU:
# batch norms that train make it find words after a minute, where layer norms need several.
_base_ = ["mayor_r50_fpn.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdet.ResNet",
        depth=18,
        base_channels=16,
        stem_channels=16,
        out_indices=(0, 1, 2, 3),
        style="pytorch",
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(
        in_channels=[16, 32, 64, 128],
        out_channels=32,
        norm_cfg=dict(type="BN", requires_grad=True),
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
