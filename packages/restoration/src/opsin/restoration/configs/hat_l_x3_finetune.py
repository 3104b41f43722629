# After hat_l_x3_imagenet: load_from=CHECKPOINT.
_base_ = ["./_base_/x3.py", "./_base_/schedule_250k.py"]
optim_wrapper = dict(optimizer=dict(lr=1e-5))
model = dict(network=dict(depths=(6,) * 12, num_heads=(6,) * 12))
