# Localisation from image labels; a config adds the model's sizes and weights, and the schedule.
# Data: a folder in the layout of CUB-200-2011 (see opsin.segmentation.weakly_supervised.datasets.cub).
_base_ = ["opsin::runtime.py"]

task = "weakly_supervised"
default_scope = "opsin"
data_root = "data/CUB_200_2011/"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="Resize", height=256, width=256),
            dict(type="RandomCrop", height=224, width=224),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="opsin.PackWeak"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.CenterView", resize=256, crop=224),
    dict(type="opsin.PackWeak"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="opsin.CUBLocalization", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.CUBLocalization",
        data_root=data_root,
        split="test",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.LocalizationMetric")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
custom_hooks = [dict(type="opsin.CheckClassCount")]
default_hooks = dict(checkpoint=dict(save_best="localization/gt_known", rule="greater"))

model = dict(
    type="opsin.WeakLocalization",
    data_preprocessor=dict(
        type="ImgDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
)
