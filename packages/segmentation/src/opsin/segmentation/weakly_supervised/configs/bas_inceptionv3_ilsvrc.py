# InceptionV3 on ILSVRC: 58.50 / 69.03 / 72.07 Top-1 / Top-5 / GT-known Loc as published.
_base_ = ["./_base_/ilsvrc.py"]
model = dict(
    network=dict(type="opsin.BASInception", num_classes=1000),
    guidance_weight=1.0,
    area_weight=2.5,
    threshold=0.25,
)
