# The baseline of MAYOR, Mask R-CNN with none of the three ideas. Any of them can be left in.
_base_ = ["mayor_r50_fpn_totaltext.py", "_base_/mask_rcnn_parts.py"]

model = dict(
    rpn_head=dict(anchor_generator=_base_.five_ratios),
    roi_head=dict(mask_head=dict(decoder=_base_.deconv_decoder, target_frame="proposal")),
    train_cfg=dict(rpn=dict(assigner=_base_.iou_assigner)),
)
