# TSM2 on the sample table (`python -m opsin.core.forecasting samples DIR`): a day from four days.
_base_ = ["./_base_/forecast.py"]

window = dict(file="data/forecasting_samples/series.csv", lookback=96, horizon=24)
train_dataloader = dict(dataset=window)
val_dataloader = dict(dataset=window)
test_dataloader = dict(dataset=window)
model = dict(network=dict(type="TSM2", lookback=96, horizon=24, variates=7, depth=2))

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=1)
