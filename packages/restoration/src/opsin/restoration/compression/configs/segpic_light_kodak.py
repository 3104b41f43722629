# A small network for two cores, on a folder of Kodak's photographs: every fourth is kept aside for tests. The
# published network needs days of GPUs; this one shows the pipeline and where two minutes lead.
_base_ = "./segpic_tiny_samples.py"
max_iters = 300
kept_aside = [3, 7, 11, 15]
data_root = "data/kodak/"
crop = dict(
    type="opsin.Albumentations",
    transforms=[dict(type="RandomCrop", height=64, width=64), dict(type="HorizontalFlip", p=0.5)],
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True,
        type="opsin.RegionPictureDataset",
        data_root=data_root,
        indices=[i for i in range(16) if i % 4 != 3],
        pipeline=[dict(type="opsin.LoadImage"), crop, dict(type="opsin.PackCompression")],
    ),
)
val_dataloader = dict(dataset=dict(data_root=data_root, img_dir="", indices=kept_aside))
test_dataloader = val_dataloader
model = dict(
    network=dict(
        width=24,
        latent=48,
        num_slices=3,
        max_support_slices=2,
        hyper=(48, 40, 32, 24, 16),
        context=(32,),
        code=(16, 8),
        head=16,
    ),
    trade_off=0.0035,
)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = dict(
    main=[dict(type="CosineAnnealingLR", by_epoch=False, end=max_iters, eta_min=1e-5)], aux=[]
)
val_evaluator = dict(trade_off=dict(mse=0.0035))
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(interval=max_iters))
