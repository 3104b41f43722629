_base_ = ["./_base_/synapse.py", "./_base_/mhs_vm_300e.py"]
