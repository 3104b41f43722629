_base_ = ["./_base_/membrane.py", "./_base_/unet.py", "./_base_/short_300.py"]
model = dict(window=(96, 96))
