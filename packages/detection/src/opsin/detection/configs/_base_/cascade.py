# What a Cascade R-CNN has beside its base: three stages of growing IoU. A config adds the box heads.


def _rcnn(iou):
    return dict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=iou,
            neg_iou_thr=iou,
            min_pos_iou=iou,
            match_low_quality=False,
            ignore_iof_thr=-1,
        ),
        sampler=dict(
            type="RandomSampler", num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True
        ),
        mask_size=28,
        pos_weight=-1,
        debug=False,
    )


cascade = dict(
    rpn_head=dict(loss_bbox=dict(_delete_=True, type="SmoothL1Loss", beta=1.0 / 9.0, loss_weight=1.0)),
    roi_head=dict(type="CascadeRoIHead", num_stages=3, stage_loss_weights=[1, 0.5, 0.25]),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=2000, max_per_img=2000), rcnn=[_rcnn(iou) for iou in (0.5, 0.6, 0.7)]
    ),
)
