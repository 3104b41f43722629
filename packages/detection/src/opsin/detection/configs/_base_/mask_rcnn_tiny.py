# Mask R-CNN on a ConvNeXt small enough to train from scratch on a CPU.
_base_ = ["mask_rcnn_convnext.py"]

norm_cfg = dict(type="GN", num_groups=16, requires_grad=True)
model = dict(
    data_preprocessor=dict(pad_value=1.0),  # see retinanet_convnext.py
    backbone=dict(arch=dict(depths=(2, 2, 3, 2), dims=(32, 64, 128, 192))),
    neck=dict(in_channels=[32, 64, 128, 192], out_channels=64, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4, 6], ratios=[1.0, 1.8], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16]),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10, reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16]),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=10),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=100), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
