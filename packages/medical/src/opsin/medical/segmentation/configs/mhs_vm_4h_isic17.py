# Without a threshold in the scan route attention.
_base_ = "./mhs_vm_4h_isic18.py"
model = dict(network=dict(gfu_t=0.0))
