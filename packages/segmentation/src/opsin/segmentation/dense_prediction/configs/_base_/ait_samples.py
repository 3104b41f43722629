# Depth of the data that `opsin samples dense_prediction DIR` writes, in crops of 96 that become 6x6 words.
_base_ = ["./depth.py"]

data_root = "data/dense_samples/"
tokenizer = dict(
    token_length=36,
    mask_size=96,
    embedding_dim=32,
    hidden_dim=64,
    num_resnet_blocks=1,
    num_embeddings=48,
    use_norm=False,
    restart_below=0.9,
)
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadDepth"),
    dict(type="opsin.RandomFlipDense"),
    dict(type="opsin.RandomCropDense", size=(96, 96)),
    dict(type="opsin.PackDense"),
]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(eigen_crop=False)
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))

max_iters = 300
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=100)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=20, end=max_iters),
]
