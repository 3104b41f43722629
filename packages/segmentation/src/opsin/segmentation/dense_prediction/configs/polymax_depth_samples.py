# A small PolyMaX from scratch, on the data that `opsin samples dense_prediction DIR` writes.
_base_ = ["./_base_/depth.py", "./_base_/polymax_samples.py"]

data_root = "data/dense_samples/"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadDepth"),
    dict(type="opsin.RandomFlipDense"),
    dict(type="opsin.PackDense"),
]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(eigen_crop=False)
test_evaluator = val_evaluator

model = dict(output={{_base_.output}})
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
