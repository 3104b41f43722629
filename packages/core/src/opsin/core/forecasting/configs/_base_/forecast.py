# Windows of one table; a config adds the file, its split, the window and the network.
_base_ = ["../../../configs/_base_/runtime.py"]

custom_imports = dict(imports=["opsin.core.forecasting"], allow_failed_imports=False)
model = dict(type="Forecaster")
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="ForecastWindows", split="train"),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ForecastWindows", split="val"),
)
test_dataloader = dict(
    batch_size=256,
    num_workers=0,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ForecastWindows", split="test"),
)
val_evaluator = dict(type="ForecastErrors")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(save_best="forecast/mse", rule="less"))
