_base_ = ["./_base_/membrane.py", "./_base_/multi_scale_attention_tiny.py", "./_base_/short_300.py"]
model = dict(network=dict(num_classes=2), window=(96, 96))
