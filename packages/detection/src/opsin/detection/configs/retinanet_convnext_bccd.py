_base_ = [
    "opsin::runtime.py",
    "_base_/retinanet_convnext.py",
    "_base_/bccd.py",
    "_base_/schedule_scratch.py",
]
task = "detection"
default_scope = "mmdet"
custom_hooks = [dict(type="opsin.CheckClassCount")]

# Platelets are 20, red cells 50 and white cells 95 pixels wide at this size, all about as wide as high.
model = dict(
    bbox_head=dict(num_classes=3, anchor_generator=dict(octave_base_scale=2.5, ratios=[0.7, 1.0, 1.4]))
)
