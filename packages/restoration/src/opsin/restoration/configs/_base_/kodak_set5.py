_base_ = ["./x4.py", "./schedule_500k.py"]
data_root = "data/"
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    dataset=dict(
        type="opsin.HighResolutionDataset",
        data_root=data_root + "kodak",
        pipeline=[
            dict(type="opsin.LoadHighResolution", cache=16),
            dict(type="opsin.RandomCropPair", size=32),
            dict(type="opsin.RandomSymmetry"),
            dict(type="opsin.PackPair"),
        ],
    ),
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root + "set5"))
test_dataloader = val_dataloader
model = dict(network=dict(init_cfg=dict(type="opsin.InterpolationInit")))
max_iters = 2_400
train_cfg = dict(max_iters=max_iters, val_interval=400)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=max_iters, eta_min=1e-6),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.005)]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=400))
