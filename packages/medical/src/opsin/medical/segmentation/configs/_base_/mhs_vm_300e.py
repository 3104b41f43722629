# The published training of MHS-VM: the rate rises again after 50 epochs; everything is decayed.
_base_ = "./epochs.py"
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-2)
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=50, eta_min=1e-5, by_epoch=True)]
randomness = dict(seed=42)
