# ResNet-50 on CUB-200-2011: 76.75 / 90.04 / 95.41 Top-1 / Top-5 / GT-known Loc as published. The backbone
# starts from ImageNet: see docs/systems/bas.md.
_base_ = ["./_base_/localization.py", "./_base_/cub_schedule.py"]
model = dict(
    network=dict(type="opsin.BASResNet", num_classes=200),
    guidance_weight=0.5,
    area_weight=1.5,
    top_k=200,
    threshold=0.1,
)
