# COCO 2017 with masks at one scale, as mmdet's 1x schedules train.
_base_ = ["coco_instance.py"]

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects", with_masks=True),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="HorizontalFlip", p=0.5),
            dict(type="ShortestEdge", short=[800], longest=1333),
        ],
    ),
    dict(type="opsin.PackDetection"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
