# The relation in the RetinaNet that learns the sample data from scratch on a CPU.
_base_ = ["retinanet_convnext_samples.py", "_base_/keypoints_tiny.py"]

model = dict(
    bbox_head=dict(
        _delete_=True,
        type="opsin.BVRHead",
        bbox_head=_base_.model.bbox_head,
        keypoint_head=dict(num_classes=10, **_base_.keypoint_head),
        relation=dict(base_size=(40, 40)),
    )
)
