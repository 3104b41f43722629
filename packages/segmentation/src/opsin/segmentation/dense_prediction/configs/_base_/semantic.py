# Classes of NYUv2: what is read, predicted and measured.
_base_ = ["./nyuv2.py"]

load = dict(type="opsin.LoadMask")
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
    dataset=dict(data_prefix=dict(rgb="train/rgb", labels="train/labels"), pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(rgb="val/rgb", labels="val/labels"),
        pipeline=[dict(type="opsin.LoadImage"), load, dict(type="opsin.PackDense")],
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="mIoU", rule="greater"))
output = dict(type="opsin.SemanticOutput", num_classes=40)
