# COCO 2017 with masks; training at many scales, half of the images cropped first (DETR's policy).
data_root = "data/coco/"
scales = list(range(480, 801, 32))

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects", with_masks=True),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="HorizontalFlip", p=0.5),
            dict(
                type="OneOf",
                p=1.0,
                transforms=[
                    dict(type="ShortestEdge", short=scales, longest=1333),
                    dict(
                        type="Sequential",
                        p=1.0,
                        transforms=[
                            dict(type="ShortestEdge", short=[400, 500, 600], longest=1333),
                            dict(type="CropBetween", low=384, high=600),
                            dict(type="ShortestEdge", short=scales, longest=1333),
                        ],
                    ),
                ],
            ),
        ],
    ),
    dict(type="opsin.PackDetection"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(type="opsin.Albumentations", transforms=[dict(type="ShortestEdge", short=[800], longest=1333)]),
    dict(type="opsin.PackDetection"),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="opsin.CocoDetection",
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017"),
        drop_bad_boxes=True,  # train2017 has a few boxes without height
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.CocoDetection",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="opsin.CocoAP", kinds=("bbox", "segm"))
test_evaluator = val_evaluator
