# The first stage of AiT's depth: a tokenizer of 15x15 words, half of its input hidden in patches.
_base_ = ["./_base_/ait_depth.py"]

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadDepth"),
    dict(type="opsin.RandomCropDense", size={{_base_.crop}}),
    dict(type="opsin.RandomFlipDense"),
    dict(type="opsin.PackDense"),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
model = dict(
    type="opsin.AiTTokenizer",
    tokenizer=dict(token_length=225, mask_size=480, hidden_dim=256, use_norm=False),
    drop_ratio=0.5,
)

max_iters = 60600  # 20 epochs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=3e-4))
param_scheduler = [dict(type="StepLR", step_size=500, gamma=0.98, by_epoch=False)]
