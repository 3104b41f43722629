# ×4 starts from a trained ×2 network: load_from=CHECKPOINT takes the tensors that fit.
_base_ = ["./_base_/x4.py", "./_base_/schedule_250k.py"]
model = dict(network=dict(embed_dim=144, compress_ratio=24, squeeze_factor=24))
