# Seeds on VOC 2012: 57.7 mIoU on its training pictures as published, with a CAM network's maps added
# (model.cam_network). Only tensors named `weight` learn.
_base_ = ["./_base_/seeds.py"]
model = dict(network=dict(type="opsin.BASSeeder", num_classes=20))
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=10, val_interval=10)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=5e-3, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys={".bias": dict(lr_mult=0.0, decay_mult=0.0), "classifier_": dict(lr_mult=10.0)}
    ),
)
param_scheduler = [dict(type="PolyLR", power=0.9, by_epoch=True, convert_to_iter_based=True, end=10)]
