# For the authors' checkpoint file, which is of mmdet 1.x: boxes whose width counts one pixel more, anchors on
# whole pixels, and RoIAlign without the half-pixel shift.
_base_ = ["cascade_mask_rcnn_r101_sdanet_pidray.py"]

roi_align = dict(aligned=False)
box_heads = _base_.model.roi_head.bbox_head
for head in box_heads:
    head.bbox_coder.type = "LegacyDeltaXYWHBBoxCoder"
model = dict(
    rpn_head=dict(
        anchor_generator=dict(type="LegacyAnchorGenerator", center_offset=0.5),
        bbox_coder=dict(type="LegacyDeltaXYWHBBoxCoder"),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=roi_align),
        bbox_head=box_heads,
        mask_roi_extractor=dict(roi_layer=roi_align),
    ),
)
