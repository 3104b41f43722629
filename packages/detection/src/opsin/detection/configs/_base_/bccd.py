# BCCD: 640x480 photographs of blood smears, boxes of red cells, white cells and platelets, in Pascal VOC's
# layout; halved, so that it trains on a CPU.
data_root = "data/bccd/"
classes = ("Platelets", "RBC", "WBC")

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(
        type="opsin.Albumentations",
        min_visibility=0.3,
        transforms=[
            dict(type="Resize", height=240, width=320),
            dict(type="HorizontalFlip", p=0.5),
            dict(type="VerticalFlip", p=0.5),
            dict(type="Affine", scale=(0.8, 1.25), fill=200, p=0.8),
            dict(type="ColorJitter", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=0.5),
        ],
    ),
    dict(type="opsin.PackDetection"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(type="opsin.Albumentations", transforms=[dict(type="Resize", height=240, width=320)]),
    dict(type="opsin.PackDetection"),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="opsin.PascalVOC",
        data_root=data_root,
        split="train",
        metainfo=dict(classes=classes),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.PascalVOC",
        data_root=data_root,
        split="val",
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="opsin.CocoAP", classwise=True)
test_evaluator = val_evaluator
