_base_ = ["./_base_/stage2.py"]
model = dict(network=_base_.networks.cvt_large)
train_dataloader = dict(batch_size=16)
protocols = dict(
    uav123=dict(update=dict(interval=25, size=3)),
    otb100=dict(update=dict(interval=6, size=2)),
    trackingnet=dict(update=dict(interval=25, size=3, decay=0.98)),
)
