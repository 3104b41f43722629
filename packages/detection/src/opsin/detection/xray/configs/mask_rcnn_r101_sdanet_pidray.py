# SDANet on Mask R-CNN. Without the attention: model.neck.type=FPN.
_base_ = [
    "opsin.detection::runtime_mmdet.py",
    "_base_/mask_rcnn_r101.py",
    "_base_/pidray.py",
    "_base_/schedule_pidray.py",
]
task = "xray_detection"
