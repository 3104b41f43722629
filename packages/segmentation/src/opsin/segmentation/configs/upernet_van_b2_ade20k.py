# VAN-B2 with UPerNet on ADE20K as published: 50.1 mIoU (several scales) from ImageNet-1K weights. Give
# these with model.backbone.init_cfg.type=opsin.Published model.backbone.init_cfg.checkpoint=FILE. B3
# changes drop_path_rate to 0.3, B4 to 0.4 and the batch to 32.
_base_ = ["./_base_/upernet_ade20k_160k.py"]

dims = [64, 128, 320, 512]
sync_bn = "torch"  # where several processes train
model = dict(
    backbone=dict(type="opsin.VAN", arch="b2", drop_path_rate=0.1, init_cfg=None),
    decode_head=dict(in_channels=dims),
    auxiliary_head=dict(in_channels=dims[2]),
    test_cfg=dict(_delete_=True, mode="whole"),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # layer scales and the biases of convolutions decay, as published
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}),
)
