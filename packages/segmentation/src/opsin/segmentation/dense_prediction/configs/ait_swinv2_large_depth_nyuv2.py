# AiT with SwinV2-L for depth.
_base_ = ["./ait_swinv2_base_depth_nyuv2.py"]
model = dict(backbone=dict(arch="large"))
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.075))
