# MaxViT-T with Cascade Mask R-CNN at 896 x 896, the detector and the size of the paper (52.1 box AP, 44.6
# mask AP). Its authors published neither code nor recipe for it: heads and schedule are those of ConvNeXt's.
# Weights: model.backbone.init_cfg=dict(type='opsin.Published', checkpoint=FILE).
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/cascade_mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
    "_base_/schedule_3x.py",
]

side = 896  # all maps are multiples of the 7x7 windows and grid
model = dict(
    data_preprocessor=dict(pad_size_divisor=side),
    backbone=dict(_delete_=True, type="opsin.MaxViT", arch="tiny", drop_path_rate=0.2, out_norm=True),
    neck=dict(in_channels=[64, 128, 256, 512]),
)

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects", with_masks=True),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="HorizontalFlip", p=0.5),
            # the image fits into a square of 0.1 to 2 times 896
            dict(type="LongestMaxSize", max_size=list(range(side // 10, 2 * side + 1))),
            dict(type="PadIfNeeded", min_height=side, min_width=side, position="top_left", fill=128),
            dict(type="RandomCrop", height=side, width=side),
        ],
    ),
    dict(type="opsin.PackDetection"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(type="opsin.Albumentations", transforms=[dict(type="LongestMaxSize", max_size=side)]),
    dict(type="opsin.PackDetection"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(paramwise_cfg=dict(decay=0.9))
