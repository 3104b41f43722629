# VGG16 on ILSVRC: 52.94 / 65.38 / 69.66 Top-1 / Top-5 / GT-known Loc as published.
_base_ = ["./_base_/ilsvrc.py"]
train_dataloader = dict(batch_size=256)
model = dict(
    network=dict(type="opsin.BASVGG", num_classes=1000), guidance_weight=0.05, area_weight=1.0, threshold=0.45
)
