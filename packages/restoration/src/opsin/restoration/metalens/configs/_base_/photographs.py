# Photographs taken through a lens while training: DATA/train, val and test of pictures, and DATA/psf.npy.
task = "metalens"
data_root = "data/metalens/"
lens = dict(type="opsin.SimulateMetalens", psf=data_root + "psf.npy", filters=13)
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(lens, crop=256),
    dict(type="opsin.PackStack"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(lens, resize=False, fixed_noise=True),
    dict(type="opsin.PackStack"),
]
predict_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(lens, fixed_noise=True),
    dict(type="opsin.PackStack"),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="opsin.CleanImages", data_root=data_root + "train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.CleanImages", data_root=data_root + "val", pipeline=test_pipeline, test_mode=True
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.CleanImages", data_root=data_root + "test", pipeline=test_pipeline, test_mode=True
    ),
)
val_evaluator = dict(type="opsin.MetalensMetric")
test_evaluator = val_evaluator
