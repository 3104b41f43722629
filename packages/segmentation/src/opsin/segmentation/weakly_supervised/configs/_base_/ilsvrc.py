# ImageNet's localisation as published: 9 epochs; what is measured is the map of the true class.
# Data: the challenge's folders (see opsin.segmentation.weakly_supervised.datasets.ilsvrc);
# type="opsin.WSOLLists" and split="test" read wsolevaluation's lists instead.
_base_ = ["./localization.py", "./localization_optimizer.py"]

data_root = "data/ILSVRC/"
train_dataloader = dict(
    batch_size=128, dataset=dict(type="opsin.ILSVRCLocalization", data_root=data_root, split="train")
)
val_dataloader = dict(
    batch_size=128, dataset=dict(type="opsin.ILSVRCLocalization", data_root=data_root, split="val")
)
test_dataloader = val_dataloader
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=9, val_interval=1)
param_scheduler = [dict(type="MultiStepLR", milestones=[3, 6], gamma=0.1, by_epoch=True)]

model = dict(top_k=1)
