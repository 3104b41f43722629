# A small head between a random CLIP and a random SAM, on `opsin samples open_vocabulary DIR`.
_base_ = ["./_base_/samples.py", "./_base_/frozenseg.py"]

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadPanoptic"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="CropBetween", low=96, high=128),
            dict(type="RandomBrightnessContrast", p=0.5),
        ],
    ),
    dict(type="opsin.PackPanoptic"),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
model = dict(
    clip=dict(
        arch=dict(
            embed_dim=32,
            visual=dict(type="convnext", arch=dict(depths=(1, 1, 1, 1), dims=(48, 64, 96, 128))),
            text=dict(width=32, layers=1, heads=2),
        )
    ),
    sam=dict(
        arch=dict(
            hidden_size=32,
            output_channels=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            global_attn_indexes=(1,),
            window_size=4,
            image_size=128,
        )
    ),
    head=dict(
        dim=64,
        num_queries=24,
        encoder_depth=1,
        encoder_ffn_dim=128,
        decoder_depth=3,
        decoder_ffn_dim=128,
        num_heads=4,
    ),
    criterion=dict(num_points=1024),
    classes=(),
    stuff=(),
    seen_share=0.0,  # a random CLIP knows nothing
    unseen_share=0.0,
)

max_iters = 300
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=100)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=20, end=max_iters),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(by_epoch=False, interval=100))
log_processor = dict(by_epoch=False, window_size=20)
