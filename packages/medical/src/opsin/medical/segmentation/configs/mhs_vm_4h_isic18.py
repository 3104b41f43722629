_base_ = ["./_base_/isic.py", "./_base_/mhs_vm_300e.py"]
