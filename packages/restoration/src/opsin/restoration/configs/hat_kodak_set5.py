# HAT-S ×4 on Kodak's photographs, measured on Set5. DATA has kodak/ and set5/.
_base_ = "./_base_/kodak_set5.py"
model = dict(network=dict(embed_dim=144, compress_ratio=24, squeeze_factor=24))
train_cfg = dict(max_iters=1_500)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=1_500, eta_min=1e-6),
]
