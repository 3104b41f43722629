# Surface normals of NYUv2: what is read, predicted and measured.
_base_ = ["./nyuv2.py"]

load = dict(type="opsin.LoadNormals")
train_pipeline = [
    dict(type="opsin.LoadImage"),
    load,
    {{_base_.rescale}},
    {{_base_.crop}},
    dict(type="opsin.RandomFlipDense"),
    {{_base_.colours}},
    dict(type="opsin.PackDense"),
]
train_dataloader = dict(
    dataset=dict(data_prefix=dict(rgb="train/rgb", normals="train/normals"), pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(rgb="val/rgb", normals="val/normals"),
        pipeline=[dict(type="opsin.LoadImage"), load, dict(type="opsin.PackDense")],
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.NormalQuality")
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="normals/mean", rule="less"))
output = dict(type="opsin.NormalOutput")
