# Localisation from image labels; a config adds the model's sizes and weights, and the schedule.
# Data: a folder in the layout of CUB-200-2011 (see opsin.segmentation.weakly_supervised.datasets.cub).
_base_ = ["./image_labels.py"]

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
    dataset=dict(type="opsin.CUBLocalization", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=32,
    dataset=dict(type="opsin.CUBLocalization", data_root=data_root, split="test", pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.LocalizationMetric")
test_evaluator = val_evaluator
custom_hooks = [dict(type="opsin.CheckClassCount")]
default_hooks = dict(checkpoint=dict(save_best="localization/gt_known", rule="greater"))

model = dict(type="opsin.WeakLocalization")
