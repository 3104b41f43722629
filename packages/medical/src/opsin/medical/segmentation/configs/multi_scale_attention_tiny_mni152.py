_base_ = ["./_base_/mni152.py", "./_base_/multi_scale_attention_tiny.py", "./_base_/short_300.py"]
model = dict(window=(96, 96))
