_base_ = ["./_base_/x3.py", "./_base_/schedule_500k.py"]
