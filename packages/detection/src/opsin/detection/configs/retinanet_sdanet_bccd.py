# SDANet's attention after the pyramid of the RetinaNet of benchmarks/real_data.md, same budget.
_base_ = ["retinanet_convnext_bccd.py"]
model = dict(neck=dict(type="opsin.SDAFPN"))
