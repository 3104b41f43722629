# The published training: the rate is halved after the first epoch, and 50 epochs after the best one.
_base_ = ["./_base_/slices.py", "./_base_/multi_scale_attention.py", "./_base_/epochs.py"]
train_cfg = dict(max_epochs=500)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3, betas=(0.9, 0.99)))
custom_hooks = [dict(type="opsin.HalveAfterBest", key="seg/dice", patience=50)]
