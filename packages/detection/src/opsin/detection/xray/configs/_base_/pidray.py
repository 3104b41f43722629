# PIDray in its published layout: trained on `train`, measured on easy, hard and hidden and all of them.
data_root = "data/pidray/"
meta_keys = (
    "img_id",
    "img_path",
    "height",
    "width",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "instances",
    "subset",
)
tiles = dict(size=1024, overlap=256)  # larger pictures are inspected in tiles
alarm_above = 0.5  # score from which an item raises an alarm in `opsin predict`; or a dictionary by class

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects", with_masks=True),
    dict(
        type="opsin.Albumentations",
        transforms=[dict(type="HorizontalFlip", p=0.5), dict(type="LongestMaxSize", max_size=500)],
    ),
    dict(type="opsin.PackDetection"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(type="opsin.Albumentations", transforms=[dict(type="LongestMaxSize", max_size=500)]),
    dict(type="opsin.PackDetection", meta_keys=meta_keys),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="opsin.PIDray", data_root=data_root, parts=["train"], pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.PIDray",
        data_root=data_root,
        parts=["easy", "hard", "hidden"],
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="opsin.SubsetAP", kinds=("bbox", "segm"))
test_evaluator = val_evaluator
