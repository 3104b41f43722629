# A small PolyMaX from scratch, on the data that `opsin samples dense_prediction DIR` writes. Digits are not
# mirrored: a mirrored 4 is no 4.
_base_ = ["./_base_/semantic.py", "./_base_/polymax_samples.py"]

data_root = "data/dense_samples/"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadMask"),
    dict(type="opsin.PackDense"),
]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

model = dict(output=dict(type="opsin.SemanticOutput", num_classes=6))
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
