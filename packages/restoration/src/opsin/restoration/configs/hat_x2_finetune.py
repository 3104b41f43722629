# After hat_x2_imagenet: load_from=CHECKPOINT.
_base_ = ["./_base_/x2.py", "./_base_/schedule_250k.py"]
optim_wrapper = dict(optimizer=dict(lr=1e-5))
