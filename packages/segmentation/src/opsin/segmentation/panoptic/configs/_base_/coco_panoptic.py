# COCO panoptic in its published layout, with DETR's augmentation.
_base_ = ["./panoptic.py"]

data_root = "data/coco/"
short = list(range(480, 801, 32))
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadPanoptic"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="HorizontalFlip", p=0.5),
            dict(
                type="OneOf",
                p=1.0,
                transforms=[
                    dict(type="ShortestEdge", short=short, longest=1333),
                    dict(
                        type="Sequential",
                        transforms=[
                            dict(type="ShortestEdge", short=[400, 500, 600], longest=4200),
                            dict(type="CropBetween", low=384, high=600),
                            dict(type="ShortestEdge", short=short, longest=1333),
                        ],
                    ),
                ],
            ),
        ],
    ),
    dict(type="opsin.PackPanoptic"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.Albumentations", transforms=[dict(type="ShortestEdge", short=[800], longest=1333)]),
    dict(type="opsin.PackPanoptic"),
]
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/panoptic_train2017.json",
        data_prefix=dict(img="train2017", seg="annotations/panoptic_train2017"),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/panoptic_val2017.json",
        data_prefix=dict(img="val2017", seg="annotations/panoptic_val2017"),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
