# SDANet's attention after the pyramid of the Faster R-CNN on blood smears, same budget.
_base_ = ["faster_rcnn_convnext_bccd.py"]
model = dict(neck=dict(type="opsin.SDAFPN"))
