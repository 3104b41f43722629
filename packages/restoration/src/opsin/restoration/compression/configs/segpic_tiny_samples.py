# A training of a minute on the sample data set (opsin samples compression DIR).
_base_ = "./_base_/coco_panoptic.py"
size = 64
max_iters = 150
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(type="opsin.LoadRegions"),
            dict(
                type="opsin.Albumentations",
                transforms=[
                    dict(type="RandomCrop", height=size, width=size),
                    dict(type="HorizontalFlip", p=0.5),
                ],
            ),
            dict(type="opsin.PackCompression"),
        ]
    ),
)
val_pipeline = [dict(type="opsin.LoadImage"), dict(type="opsin.PackCompression")]
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
model = dict(
    network=dict(
        width=32,
        latent=40,
        num_slices=5,
        max_support_slices=2,
        hyper=(32, 28, 24, 20, 16),
        context=(24, 20),
        code=(12, 8),
        head=12,
        num_heads=4,
    ),
    trade_off=0.0067,
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=100)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(main=dict(optimizer=dict(lr=2e-3)), aux=dict(optimizer=dict(lr=5e-2)))
param_scheduler = dict(
    main=[dict(type="CosineAnnealingLR", by_epoch=False, end=max_iters, eta_min=1e-5)], aux=[]
)
val_evaluator = dict(trade_off=dict(mse=0.0067))
test_evaluator = val_evaluator
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=100, save_best="compression/loss", rule="less"),
)
log_processor = dict(by_epoch=False)
