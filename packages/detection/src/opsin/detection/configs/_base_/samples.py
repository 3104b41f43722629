# The detection sample data (`opsin samples detection DIR`). Digits are not flipped: a mirrored 2 is no 2.
data_root = "data/detection/"

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(
        type="opsin.Albumentations",
        min_visibility=0.5,
        transforms=[
            dict(type="Affine", scale=(0.8, 1.25), p=0.5, fill=114),
            dict(type="PadIfNeeded", min_height=160, min_width=160, fill=114),
            dict(type="RandomCrop", height=160, width=160),
            dict(type="ColorJitter", brightness=0.2, contrast=0.2, saturation=0.3, hue=0.2, p=0.5),
        ],
    ),
    dict(type="opsin.PackDetection"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(type="opsin.PackDetection"),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="opsin.CocoDetection",
        data_root=data_root,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="images/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.CocoDetection",
        data_root=data_root,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="images/val"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="opsin.CocoAP")
test_evaluator = val_evaluator
