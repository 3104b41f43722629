# The relation in the RetinaNet of benchmarks/real_data.md on blood smears, same budget.
_base_ = ["retinanet_convnext_bccd.py", "_base_/keypoints_tiny.py"]

model = dict(
    bbox_head=dict(
        _delete_=True,
        type="opsin.BVRHead",
        bbox_head=_base_.model.bbox_head,
        keypoint_head=dict(num_classes=3, **_base_.keypoint_head),
        relation=dict(base_size=(80, 80)),
    )
)
