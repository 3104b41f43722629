# Pairs for ×2, and how they are trained on and measured. Data: DATA/train and DATA/val, each in any layout of
# opsin.restoration.datasets.pairs.
task = "super_resolution"
data_root = "data/super_resolution/"
train_pipeline = [
    dict(type="opsin.LoadPair"),
    dict(type="opsin.RandomCropPair", size=64),
    dict(type="opsin.RandomSymmetry"),
    dict(type="opsin.PackPair"),
]
test_pipeline = [dict(type="opsin.LoadPair"), dict(type="opsin.PackPair")]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="opsin.PairedImageDataset", scale=2, data_root=data_root + "train", pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.PairedImageDataset",
        scale=2,
        data_root=data_root + "val",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.SuperResolutionMetric", crop_border=2)
test_evaluator = val_evaluator
model = dict(
    type="opsin.SuperResolver",
    network=dict(type="opsin.HAT", upscale=2),
    tile=dict(type="opsin.BlockwiseTiling", size=256),
)
