# AiT-P with SwinV2-L.
_base_ = ["./ait_swinv2_large_depth_nyuv2.py"]
model = dict(solver=dict(parallel=True))
