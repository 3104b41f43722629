# Seeds from image labels; a config adds the model's sizes and the schedule.
# Data: a folder in the layout of VOC 2012 (see opsin.segmentation.weakly_supervised.datasets.voc).
_base_ = ["./image_labels.py"]

data_root = "data/VOC2012/"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadImageLabels"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="Resize", height=512, width=512),
            dict(type="RandomCrop", height=448, width=448),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="opsin.PackWeak"),
]
# the labels of the pictures are known when seeds are cut
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadImageLabels"),
    dict(type="opsin.LoadMask"),
    dict(type="opsin.PackWeak"),
]
# and so are those of pictures in VOC's folders when it predicts
predict_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.FindImageLabels"),
    dict(type="opsin.PackWeak"),
]
train_dataloader = dict(
    batch_size=16,
    dataset=dict(type="opsin.VOCLabels", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    dataset=dict(type="opsin.VOCLabels", data_root=data_root, split="train", pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="mIoU", rule="greater"))

model = dict(type="opsin.SeedGeneration")
