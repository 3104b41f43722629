# InceptionV3 on CUB-200-2011: 72.09 / 88.11 / 94.63 Top-1 / Top-5 / GT-known Loc as published.
_base_ = ["./_base_/localization.py", "./_base_/cub_schedule.py"]
model = dict(
    network=dict(type="opsin.BASInception", num_classes=200),
    guidance_weight=0.5,
    area_weight=1.0,
    top_k=200,
    threshold=0.1,
)
