# What all tracking configs share. `data_root` holds one folder a benchmark.
_base_ = ["opsin::_base_/runtime.py"]
task = "tracking"
data_root = "data/"
model = dict(type="opsin.SequenceTracker", crops=dict(search_factor=4.5), update=dict(interval=200, size=2))
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="opsin.TrainingPairs",
        data_root=data_root,
        sources=[
            dict(layout="lasot", root="lasot", split="train"),
            dict(layout="got10k", root="got10k", split="train"),
            dict(layout="coco", root="coco", split="train"),
            dict(layout="trackingnet", root="trackingnet", split="train"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.SequenceDataset",
        layout="got10k",
        split="val",
        data_root=data_root + "got10k",
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.OnePassEvaluation")
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
# Settings of the published runs that `opsin track-benchmark` takes for each benchmark.
protocols = dict(
    lasot=dict(update=dict(interval=200, size=2), crops=dict(search_factor=4.55)),
    got10k=dict(update=dict(interval=10, size=2, decay=0.98), crops=dict(search_factor=4.55)),
    trackingnet=dict(update=dict(interval=25, size=1)),
    uav123=dict(update=dict(interval=200, size=1)),
    otb100=dict(update=dict(interval=6, size=3)),
    vot=dict(update=dict(interval=10, size=5)),
)
predict_pipeline = []
default_hooks = dict(checkpoint=dict(save_best="track/success", rule="greater"))
