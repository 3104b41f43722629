_base_ = ["./_base_/stage2.py"]
model = dict(network=_base_.networks.cvt)
