# How runs of stock mmdet detectors behave, on opsin's data or on COCO.
_base_ = ["opsin::runtime.py"]
task = "detection"
default_scope = "mmdet"  # its classes build each other by bare names
custom_hooks = [dict(type="opsin.CheckClassCount")]
