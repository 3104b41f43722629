# A small Panoptic SegFormer on a small ConvNeXt, from scratch, on the sample data.
_base_ = ["./_base_/samples.py"]

dims = (32, 64, 128, 192)
model = dict(
    type="opsin.PanopticSegFormer",
    backbone=dict(
        type="opsin.ConvNeXt",
        arch=dict(depths=(2, 2, 3, 2), dims=dims),
        out_indices=(0, 1, 2),  # strides 4, 8, 16: the pictures are small
        layer_scale_init_value=1.0,
    ),
    bbox_head=dict(
        num_things_classes=3,
        num_stuff_classes=4,
        num_queries=40,
        embed_dims=64,
        num_heads=8,
        ffn_dims=128,
        encoder_layers=2,
        location_layers=3,
        thing_blocks=2,
        stuff_blocks=2,
        dropout=0.0,
        rounds=3,  # more masks to learn from
    ),
    test_cfg=dict(max_per_img=40),
)

max_iters = 600
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=200)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=20, end=max_iters),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(by_epoch=False, interval=200))
log_processor = dict(by_epoch=False, window_size=20)
