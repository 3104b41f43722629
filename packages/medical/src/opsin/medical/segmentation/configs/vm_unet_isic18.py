_base_ = "./mhs_vm_4h_isic18.py"
model = dict(network=dict(arch="vm_unet"))
