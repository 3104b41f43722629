# IRN with the backbone of bas_seeds_samples (load_from) on its seeds: see docs/systems/bas.md.
_base_ = ["./_base_/relations.py"]

data_root = "data/weakly_supervised_samples/"
classes = ["blue_four", "green_one", "red_zero"]
seeds = dict(type="opsin.FindSeeds", folder=data_root + "seeds/maps", num_classes=3, floor=0.9)
flatter_seeds = dict(type="opsin.FindSeeds", folder=data_root + "seeds/maps", num_classes=3, floor=0.8)
# strokes are 8 pixels wide: of twice the size, so that they are more than a cell or two
enlarge = dict(type="opsin.Albumentations", transforms=[dict(type="Resize", height=192, width=192)])
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadImageLabels"),
    flatter_seeds,
    dict(type="opsin.ConfidentLabels", foreground=0.6, background=0.2),
    enlarge,
    dict(type="opsin.Albumentations", transforms=[dict(type="HorizontalFlip", p=0.5)]),
    dict(type="opsin.PackWeak"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadImageLabels"),
    seeds,
    enlarge,
    dict(type="opsin.LoadMask"),
    dict(type="opsin.PackWeak"),
]
predict_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.FindImageLabels", classes=classes),
    seeds,
    enlarge,
    dict(type="opsin.PackWeak"),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(data_root=data_root + "VOC2012", classes=classes, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(data_root=data_root + "VOC2012", classes=classes, split="val", pipeline=test_pipeline),
)
test_dataloader = val_dataloader

model = dict(
    network=dict(depth=18, base_channels=16, displacement_width=64),
    num_classes=3,
    radius=6,
    # objects are small: a long walk leaves them
    beta=5.0,
    steps=16,
    background=0.65,
)

max_iters = 100
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=50)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4))
param_scheduler = [dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, end=max_iters)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=50))
log_processor = dict(by_epoch=False)
