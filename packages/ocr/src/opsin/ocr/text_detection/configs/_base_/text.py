# How pictures of text are augmented, tested and measured; a config says which data set and, by
# `test_pipeline[-2]`, at which size it is tested.
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadTextAnnotations"),
    dict(
        type="opsin.PolygonAlbumentations",
        transforms=[
            dict(type="Affine", rotate=(-10, 10), fill=114, p=0.5),
            dict(type="ShortestEdge", short=[640, 800, 960, 1120, 1280], longest=2000),
            dict(type="ColorJitter", brightness=0.2, contrast=0.2, saturation=0.3, hue=0.1, p=0.5),
        ],
    ),
    dict(type="opsin.CropText", size=640),
    dict(type="opsin.PackTextInputs"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadTextAnnotations"),
    dict(
        type="opsin.PolygonAlbumentations", transforms=[dict(type="ShortestEdge", short=[1000], longest=2400)]
    ),
    dict(type="opsin.PackTextInputs"),
]

# 16 images an iteration on all processes together: with 8 of them, batch_size=2.
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(split="test", test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="opsin.PolygonHmean")
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=False, base_batch_size=16)
