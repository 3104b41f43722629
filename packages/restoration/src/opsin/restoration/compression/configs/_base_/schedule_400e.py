# The published training: Adam, halved when the validation's loss stops falling.
_base_ = "./coco_panoptic.py"
train_cfg = dict(by_epoch=True, max_epochs=400, val_interval=1)
val_cfg = dict()
test_cfg = dict()
param_scheduler = dict(
    main=[
        dict(
            type="ReduceOnPlateauLR",
            monitor="compression/loss",
            rule="less",
            factor=0.5,
            patience=16,
            min_value=5e-6,
        )
    ],
    aux=[],
)
default_hooks = dict(
    logger=dict(interval=100), checkpoint=dict(interval=1, save_best="compression/loss", rule="less")
)
