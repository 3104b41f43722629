_base_ = ["./_base_/imagenet_x4.py", "./_base_/schedule_800k.py"]
