# The model and CLIP's mean and std; a config adds clip, sam and head.
model = dict(
    type="opsin.FrozenSeg",
    data_preprocessor=dict(
        type="mmdet.DetDataPreprocessor",
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=False,
        pad_size_divisor=32,
        pad_mask=True,
        pad_seg=True,
        seg_pad_value=255,
    ),
)
