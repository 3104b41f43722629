# NYUv2 in the layout of opsin.NYUv2; depth.py, normals.py and semantic.py say what is read.
_base_ = ["opsin::runtime.py"]

task = "dense_prediction"
default_scope = "opsin"
tiles = dict(size=None, overlap=128)  # predict cuts pictures larger than a size that is given
data_root = "data/nyuv2/"

rescale = dict(type="opsin.RandomScaleDense", low=0.5, high=2.0)
crop = dict(type="opsin.RandomCropDense", size=(481, 641))
colours = dict(
    type="opsin.Albumentations",
    transforms=[dict(type="ColorJitter", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=0.8)],
)

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
