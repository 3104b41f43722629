# AiT without soft words: what the paper compares with.
_base_ = ["./ait_swinv2_base_depth_nyuv2.py"]
model = dict(solver=dict(soft_transformer=False), depth=dict(soft=False))
