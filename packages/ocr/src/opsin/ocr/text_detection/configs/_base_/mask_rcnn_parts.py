# What Mask R-CNN has in place of MAYOR's three ideas. A config that inherits this takes all of them or one:
#   model = dict(
#       roi_head=dict(mask_head=dict(decoder=_base_.deconv_decoder, target_frame="proposal")),
#       rpn_head=dict(anchor_generator=_base_.five_ratios),
#       train_cfg=dict(rpn=dict(assigner=_base_.iou_assigner)),
#   )
deconv_decoder = dict(_delete_=True, type="opsin.DeconvMaskDecoder")
five_ratios = dict(ratios=[0.25, 0.5, 1.0, 2.0, 4.0])
iou_assigner = dict(
    _delete_=True,
    type="MaxIoUAssigner",
    pos_iou_thr=0.7,
    neg_iou_thr=0.3,
    min_pos_iou=0.3,
    match_low_quality=True,
    ignore_iof_thr=0.5,
)
