# VGG16 on CUB-200-2011: 70.90 / 85.36 / 91.04 Top-1 / Top-5 / GT-known Loc as published.
_base_ = ["./_base_/localization.py", "./_base_/cub_schedule.py"]
model = dict(
    network=dict(type="opsin.BASVGG", num_classes=200),
    guidance_weight=0.0,
    area_weight=0.9,
    top_k=80,
    threshold=0.1,
)
