# The first phase of real-world training.
_base_ = ["./_base_/real_x4.py", "./_base_/schedule_1000k.py"]
