_base_ = ["./_base_/x2.py", "./_base_/schedule_500k.py"]
model = dict(network=dict(embed_dim=144, compress_ratio=24, squeeze_factor=24))
