# AiT-P: all words at once.
_base_ = ["./ait_swinv2_base_depth_nyuv2.py"]
model = dict(solver=dict(parallel=True))
