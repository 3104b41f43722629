# SMT-S with UPerNet on ADE20K as published: 49.2 mIoU from ImageNet-1K weights. Give these with
# model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=FILE. The base model
# changes arch and drop_path_rate (0.3).
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [64, 128, 256, 512]
sync_bn = "torch"  # where several processes train
model = dict(
    backbone=dict(type="opsin.SMT", arch="small", drop_path_rate=0.2, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
    test_cfg=dict(_delete_=True, mode="whole"),
)

optim_wrapper = dict(
    type="OptimWrapper",
    # weight decay on all parameters, norms and biases too, as published
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
)
