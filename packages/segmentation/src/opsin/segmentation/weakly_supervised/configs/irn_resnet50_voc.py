# IRN on VOC 2012 as its authors train it; with BAS's seeds 71.1 mIoU on the training pictures as published.
# The backbone is frozen and starts from ImageNet: see docs/systems/bas.md.
_base_ = ["./_base_/relations.py"]

model = dict(num_classes=20, fill_to=512)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=3, val_interval=3)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"fc_dp": dict(lr_mult=10.0)}),
)
param_scheduler = [dict(type="PolyLR", power=0.9, by_epoch=True, convert_to_iter_based=True, end=3)]
