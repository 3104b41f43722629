_base_ = ["./_base_/mni152.py", "./_base_/unet.py", "./_base_/short_300.py"]
model = dict(network=dict(out_channels=3), loss=dict(type="opsin.CEDiceLoss"), window=(96, 96))
