# AiT with SwinV2-B for instance segmentation, from a model trained for detection (load_from=FILE).
# Give the tokenizer as model.instances.checkpoint=FILE.
_base_ = ["./_base_/ait_coco.py"]

model = dict(
    type="opsin.AiT",
    backbone=dict(type="opsin.AiTSwinV2", arch="base", use_shift=(True,) * 4, drop_path_rate=0.2),
    solver=dict(top_p=0.4),
    instances=dict(tokenizer=dict(token_length=16, mask_size=64), checkpoint=None),
    data_preprocessor={{_base_.data_preprocessor}},
)
max_iters = 92500
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=10000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=500),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=500, end=max_iters),
]
