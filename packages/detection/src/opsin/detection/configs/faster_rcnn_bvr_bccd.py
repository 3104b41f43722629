# The relation in the Faster R-CNN on blood smears, same budget.
_base_ = ["faster_rcnn_convnext_bccd.py", "_base_/keypoints_tiny.py"]

model = dict(
    roi_head=dict(
        type="opsin.BVRRoIHead",
        keypoint_head=dict(num_classes=3, **_base_.keypoint_head),
        relation=dict(base_size=(80, 80)),
    )
)
