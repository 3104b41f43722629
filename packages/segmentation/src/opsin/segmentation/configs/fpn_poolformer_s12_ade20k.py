# PoolFormer-S12 with Semantic FPN on ADE20K, as published: 37.2 mIoU after 40k iterations of 32 images, from
# ImageNet-1K weights: model.backbone.init_cfg.type=opsin.Published
# model.backbone.init_cfg.checkpoint=poolformer_s12.pth.tar
_base_ = ["./_base_/semantic_fpn.py", "./_base_/ade20k.py"]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type="opsin.MetaFormer", arch="poolformer_s12", init_cfg=None),
    neck=dict(in_channels=[64, 128, 320, 512]),
    decode_head=dict(num_classes=150),
)

test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.Albumentations", transforms=[dict(type="SmallestMaxSize", max_size=512)]),
    dict(type="mmseg.ResizeToMultiple", size_divisor=32),  # the published test stretches, it does not pad
    dict(type="opsin.LoadMask"),  # evaluation compares in the original size
    dict(type="mmseg.PackSegInputs"),
]
train_dataloader = dict(batch_size=32)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 40000
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=4000)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4)
)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=max_iters)]
default_hooks = dict(checkpoint=dict(interval=4000))
