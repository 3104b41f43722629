_base_ = ["./_base_/x2.py", "./_base_/schedule_500k.py"]
