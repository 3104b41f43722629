# A thin RWKV-SAM, from scratch, on the data that `opsin samples promptable DIR` writes.
_base_ = ["./_base_/masks.py"]

data_root = "data/promptable_samples/"
image_size = 64
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadMasks"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="RandomBrightnessContrast", p=0.5),
            dict(type="LongestMaxSize", max_size=image_size),
        ],
    ),
    dict(type="opsin.PackPrompts"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(
        type="opsin.Albumentations",
        transforms=[dict(type="LongestMaxSize", max_size=image_size)],
    ),
    dict(type="opsin.LoadMasks"),
    dict(type="opsin.PackPrompts"),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                type="opsin.CocoMasks",
                data_root=data_root + "coco",
                ann_file="annotations/instances_train.json",
                data_prefix=dict(img="images/train"),
                pipeline=train_pipeline,
            ),
            dict(
                type="opsin.DIS5K",
                data_root=data_root + "DIS5K",
                split="DIS-TR",
                pipeline=train_pipeline,
            ),
            dict(type="opsin.SA1B", data_root=data_root + "SA-1B", folder="train", pipeline=train_pipeline),
        ],
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        type="opsin.DIS5K",
        data_root=data_root + "DIS5K",
        split="DIS-VD",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

model = dict(
    type="opsin.RWKVSAM",
    arch=dict(dims=(16, 32, 64), depths=(1, 2, 4)),
    image_size=image_size,
    embed_dim=64,
    train_prompts=True,
    # from scratch, much cross entropy would settle on empty masks
    mask_loss=dict(type="opsin.SampledMaskLoss", points=512, mask_weight=1.0),
    data_preprocessor=dict(
        type="opsin.PromptPreprocessor", image_size=image_size, mode="more_boxes", most_masks=8
    ),
)

max_iters = 300
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=100)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=20),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=20, end=max_iters),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=100))
log_processor = dict(by_epoch=False)
everything = dict(points_per_side=12, least_stability=0.5)  # a thin model is less firm than a published one
