_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/retinanet_convnext.py",
    "_base_/samples.py",
    "_base_/schedule_scratch.py",
]
