# ResNet-50 on OpenImages30k: PxAP 66.86, PIoU 50.72 as published.
# Data: pictures, masks and wsolevaluation's lists
# (see opsin.segmentation.weakly_supervised.datasets.wsol_lists).
_base_ = ["./_base_/localization.py", "./_base_/localization_optimizer.py"]

data_root = "data/OpenImages/"
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjectMask"),
    dict(type="opsin.CenterView", resize=256, crop=224),
    dict(type="opsin.PackWeak"),
]
train_dataloader = dict(
    batch_size=64, dataset=dict(type="opsin.WSOLLists", data_root=data_root, split="train")
)
val_dataloader = dict(
    batch_size=64,
    dataset=dict(type="opsin.WSOLLists", data_root=data_root, split="val", pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=64,
    dataset=dict(type="opsin.WSOLLists", data_root=data_root, split="test", pipeline=test_pipeline),
)
val_evaluator = dict(type="opsin.PixelLocalizationMetric")
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="localization/pxap"))
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=50, val_interval=1)
param_scheduler = [dict(type="MultiStepLR", milestones=[20, 40], gamma=0.1, by_epoch=True)]

model = dict(
    network=dict(type="opsin.BASResNet", num_classes=100), guidance_weight=0.5, area_weight=1.5, top_k=1
)
