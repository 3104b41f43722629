# ResNet-50 on ILSVRC: 57.46 / 68.57 / 72.00 Top-1 / Top-5 / GT-known Loc as published.
_base_ = ["./_base_/ilsvrc.py"]
model = dict(
    network=dict(type="opsin.BASResNet", num_classes=1000),
    guidance_weight=1.0,
    area_weight=2.0,
    threshold=0.25,
)
