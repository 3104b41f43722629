# The relation in the RetinaNet that learns the sample data from scratch on a CPU.
_base_ = ["retinanet_convnext_samples.py"]

norm_cfg = dict(type="GN", num_groups=16, requires_grad=True)
model = dict(
    bbox_head=dict(
        _delete_=True,
        type="opsin.BVRHead",
        bbox_head=_base_.model.bbox_head,
        keypoint_head=dict(
            num_classes=10,
            in_channels=64,
            feat_channels=64,
            stacked_convs=1,
            logits_convs=0,
            strides=[8, 16, 32],
            norm_cfg=norm_cfg,
        ),
        relation=dict(base_size=(40, 40)),
    )
)
