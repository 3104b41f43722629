_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/retinanet_convnext.py",
    "_base_/bccd.py",
    "_base_/schedule_scratch.py",
]

# Platelets are 20, red cells 50 and white cells 95 pixels wide at this size, all about as wide as high.
model = dict(
    bbox_head=dict(num_classes=3, anchor_generator=dict(octave_base_scale=2.5, ratios=[0.7, 1.0, 1.4]))
)
