# Depth of NYUv2: what is read, predicted and measured.
_base_ = ["./nyuv2.py"]

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadDepth"),
    dict(type="opsin.RandomScaleDense", low=0.5, high=2.0),
    dict(type="opsin.RandomCropDense", size=(481, 641)),
    dict(type="opsin.RandomFlipDense"),
    dict(
        type="opsin.Albumentations",
        transforms=[dict(type="ColorJitter", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=0.8)],
    ),
    dict(type="opsin.PackDense"),
]
test_pipeline = [dict(type="opsin.LoadImage"), dict(type="opsin.LoadDepth"), dict(type="opsin.PackDense")]
train_dataloader = dict(
    dataset=dict(data_prefix=dict(rgb="train/rgb", depth="train/depth"), pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(data_prefix=dict(rgb="val/rgb", depth="val/depth"), pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.DepthQuality", eigen_crop=True)
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="depth/rmse", rule="less"))
output = dict(type="opsin.DepthOutput", max_depth=10.0)
