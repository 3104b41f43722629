# Depth of NYUv2: what is read, predicted and measured.
_base_ = ["./nyuv2.py"]

load = dict(type="opsin.LoadDepth")
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
    dataset=dict(data_prefix=dict(rgb="train/rgb", depth="train/depth"), pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(rgb="val/rgb", depth="val/depth"),
        pipeline=[dict(type="opsin.LoadImage"), load, dict(type="opsin.PackDense")],
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.DepthQuality", eigen_crop=True)
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="depth/rmse", rule="less"))
output = dict(type="opsin.DepthOutput", max_depth=10.0)
