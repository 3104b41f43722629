# The key-point head of the small detectors, whose pyramids have 64 channels; it reads strides 8 to 32.
keypoint_head = dict(
    in_channels=64,
    feat_channels=64,
    stacked_convs=1,
    logits_convs=0,
    strides=[8, 16, 32],
    norm_cfg=dict(type="GN", num_groups=16, requires_grad=True),
)
