# ResNet as COCO's detectors of mmdet use it, from ImageNet weights; a config gives depth and init_cfg.
resnet = dict(
    type="ResNet",
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    frozen_stages=1,
    norm_cfg=dict(type="BN", requires_grad=True),
    norm_eval=True,
    style="pytorch",
)
