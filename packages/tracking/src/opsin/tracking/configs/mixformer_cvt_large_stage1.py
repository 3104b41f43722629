_base_ = ["./_base_/stage1.py"]
model = dict(network=_base_.networks.cvt_large)
