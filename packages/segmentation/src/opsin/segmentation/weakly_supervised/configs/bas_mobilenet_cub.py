# MobileNetV1 on CUB-200-2011: 70.54 / 86.71 / 93.04 Top-1 / Top-5 / GT-known Loc as published.
_base_ = ["./_base_/localization.py", "./_base_/cub_schedule.py"]
model = dict(
    network=dict(type="opsin.BASMobileNet", num_classes=200),
    guidance_weight=0.5,
    area_weight=1.9,
    top_k=80,
    threshold=0.1,
)
