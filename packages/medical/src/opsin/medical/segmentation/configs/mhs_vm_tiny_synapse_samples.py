# Grey and white matter in Synapse's layout: --data DIR/synapse
_base_ = ["./_base_/synapse.py", "./_base_/short.py"]
classes = ("background", "grey matter", "white matter")
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        classes=classes,
        cache_num=36,
        pipeline=[dict(type="opsin.RandomTurnOrRotation"), dict(type="opsin.PackMedical")],
    ),
)
val_dataloader = dict(dataset=dict(classes=classes))
test_dataloader = val_dataloader
val_evaluator = dict(classes=classes)
test_evaluator = val_evaluator
model = dict(network=dict(arch="tiny", num_classes=3), slice_size=(64, 64))
