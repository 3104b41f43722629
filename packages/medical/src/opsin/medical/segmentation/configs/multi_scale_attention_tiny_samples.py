# Grey and white matter of slices: --data DIR/slices
_base_ = ["./_base_/slices.py", "./_base_/multi_scale_attention_tiny.py", "./_base_/short.py"]
classes = ("background", "grey matter", "white matter")
label_values = (0, 63, 126)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        classes=classes,
        cache_num=36,
        pipeline=[
            dict(
                type="opsin.MonaiTransforms",
                transforms=[{{_base_.scale}}, dict(type="RandFlipd", prob=0.5, spatial_axis=1)],
            ),
            dict(type="opsin.PackMedical"),
        ],
    ),
)
val_dataloader = dict(dataset=dict(classes=classes))
test_dataloader = dict(dataset=dict(classes=classes))
val_evaluator = dict(classes=classes)
test_evaluator = val_evaluator
