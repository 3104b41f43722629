# MobileNetV1 on ILSVRC: 53.05 / 66.68 / 72.03 Top-1 / Top-5 / GT-known Loc as published.
_base_ = ["./_base_/ilsvrc.py"]
model = dict(
    network=dict(type="opsin.BASMobileNet", num_classes=1000),
    guidance_weight=0.5,
    area_weight=1.5,
    threshold=0.5,
)
