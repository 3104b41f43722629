# 46.3 box AP, 41.8 mask AP (authors, 3x schedule), from weights that they pretrained on ImageNet-1K:
# model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_3x.py",
]
model = dict(
    backbone=dict(_delete_=True, type="opsin.MSVMamba", arch="micro", drop_path_rate=0.2),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
