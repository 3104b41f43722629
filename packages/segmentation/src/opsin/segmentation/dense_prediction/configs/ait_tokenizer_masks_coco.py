# The first stage of AiT's instances: a tokenizer of 4x4 words for masks of 64x64 in their boxes.
_base_ = ["./_base_/ait_coco.py"]

model = dict(
    type="opsin.AiTTokenizer",
    tokenizer=dict(token_length=16, mask_size=64),
    data_preprocessor={{_base_.data_preprocessor}},
)
max_iters = 36000
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters)
val_cfg = val_dataloader = val_evaluator = None  # its losses say how good it is
optim_wrapper = dict(
    _delete_=True, type="OptimWrapper", optimizer=dict(type="AdamW", lr=3e-4, weight_decay=0.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=500),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=500, end=max_iters),
]
