# Pictures with masks, prompts drawn from them; a config adds the data sets, image_size and the schedule.
_base_ = ["opsin::runtime.py"]

task = "promptable"
default_scope = "opsin"

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.MaskMetric")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(save_best="promptable/mIoU", rule="greater"))
