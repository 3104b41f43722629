_base_ = ["./_base_/imagenet_x4.py", "./_base_/schedule_800k.py"]
model = dict(network=dict(depths=(6,) * 12, num_heads=(6,) * 12))
