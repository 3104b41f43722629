_base_ = [
    "opsin::runtime.py",
    "_base_/retinanet_convnext.py",
    "_base_/samples.py",
    "_base_/schedule_scratch.py",
]
task = "detection"
default_scope = "mmdet"  # its classes build each other by bare names
custom_hooks = [dict(type="opsin.CheckClassCount")]
