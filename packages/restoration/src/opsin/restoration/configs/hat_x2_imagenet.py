_base_ = ["./_base_/imagenet_x2.py", "./_base_/schedule_800k.py"]
