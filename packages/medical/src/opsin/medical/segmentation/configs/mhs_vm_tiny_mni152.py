_base_ = ["./_base_/mni152.py", "./_base_/mhs_vm_tiny.py", "./_base_/short_300.py"]
model = dict(network=dict(num_classes=3), loss=dict(type="opsin.CEDiceLoss"), window=(96, 96))
