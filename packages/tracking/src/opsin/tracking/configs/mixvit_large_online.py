_base_ = ["./_base_/stage2.py"]
model = dict(network=_base_.networks.vit_large, crops=dict(template_size=192, search_size=384))
train_dataloader = dict(dataset=dict(template_size=192, search_size=384, search_factor=4.5))
protocols = dict(
    uav123=dict(update=dict(interval=25, size=3)), trackingnet=dict(update=dict(interval=25, size=3))
)
