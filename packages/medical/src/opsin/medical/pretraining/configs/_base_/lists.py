# Pictures and volumes in lists (`path label` a line), pretrained as masked autoencoders are; a config adds
# the model, the pipelines and the schedule.
_base_ = ["opsin::runtime.py"]

task = "medical_pretraining"
default_scope = "opsin"
data_root = "data/ophthalmic/"

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="OneKindBatches"),
    dataset=dict(type="PathLists", data_root=data_root, lists=["train.txt"]),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="PathLists", data_root=data_root, lists=["val.txt"], test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="ExplainedVariance")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(save_best="pretraining/explained", rule="greater"))
