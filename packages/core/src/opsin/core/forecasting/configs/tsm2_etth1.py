# TSM2 on ETTh1 in the usual protocol: 12, 4 and 4 months for training, validation and test. Other horizons
# (192, 336, 720) change both `horizon`. ETTm1 and ETTm2 differ by their file alone; other tables are split
# 7:1:2 (months=False, parts=(7, 1, 2)) and have other numbers of variates.
_base_ = ["./_base_/forecast.py"]

window = dict(file="data/ETT/ETTh1.csv", lookback=96, horizon=96, months=True, parts=(12, 4, 4))
train_dataloader = dict(dataset=window)
val_dataloader = dict(dataset=window)
test_dataloader = dict(dataset=window)
model = dict(network=dict(type="TSM2", lookback=96, horizon=96, variates=7, depth=2))

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=1)
