# A small network for one core of a CPU, on a folder of Kodak's photographs: every fourth is kept aside for
# tests. The published network needs days of GPUs; benchmarks/compression.md says how far this one gets.
_base_ = "./segpic_tiny_samples.py"
size = 128  # two places of z a side: its 3x3 convolutions would learn nothing of neighbours in smaller crops
max_iters = 1200
decay = max_iters * 3 // 4  # the step is constant until then, and falls to 0 at the end
trade_off = 0.0035
kept_aside = [3, 7, 11, 15]
data_root = "data/kodak/"
train_dataloader = dict(
    batch_size=3,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type="opsin.RegionPictureDataset",
        data_root=data_root,
        in_memory=True,
        indices=[i for i in range(16) if i % 4 != 3],
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(
                type="opsin.Albumentations",
                transforms=[
                    dict(type="RandomCrop", height=size, width=size),
                    dict(type="HorizontalFlip", p=0.5),
                    dict(type="VerticalFlip", p=0.5),
                ],
            ),
            dict(type="opsin.PackCompression"),
        ],
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, img_dir="", indices=kept_aside),
)
test_dataloader = val_dataloader
model = dict(
    network=dict(
        width=32,
        latent=64,
        num_slices=2,
        max_support_slices=1,
        hyper=(64, 56, 48, 40, 32),
        context=(48, 32),
        code=(32, 16),
        head=16,
        num_heads=2,
        window_sizes=(4, 4),
    ),
    trade_off=trade_off,
    train_grid=1,
)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(
    main=dict(optimizer=dict(lr=1e-3, fused=True)),
    aux=dict(optimizer=dict(lr=1e-2)),
)
param_scheduler = dict(
    _delete_=True,
    main=[
        dict(type="LinearLR", by_epoch=False, start_factor=0.02, end=50),
        dict(type="LinearLR", by_epoch=False, end_factor=0.01, start_factor=1.0, begin=decay, end=max_iters),
    ],
    aux=[],
)
val_evaluator = dict(trade_off=dict(mse=trade_off))
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=max_iters))
log_processor = dict(window_size=50)
