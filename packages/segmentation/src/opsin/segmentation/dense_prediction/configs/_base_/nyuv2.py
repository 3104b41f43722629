# NYUv2 in the layout of opsin.NYUv2; depth.py, normals.py and semantic.py say what is read.
_base_ = ["opsin::runtime.py"]

task = "dense_prediction"
default_scope = "opsin"
data_root = "data/nyuv2/"

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="opsin.NYUv2", data_root=data_root),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="opsin.NYUv2", data_root=data_root, test_mode=True),
)
test_dataloader = val_dataloader
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False, window_size=50)
