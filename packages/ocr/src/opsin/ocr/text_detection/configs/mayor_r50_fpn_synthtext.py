# MAYOR's pre-training on SynthText: 100,000 iterations of SGD; measured on the test split of Total-Text.
_base_ = ["_base_/mayor_text.py"]

data_root = "data/synthtext/"
measured_root = "data/totaltext/"
train_dataloader = dict(
    dataset=dict(_delete_=True, type="opsin.SynthText", data_root=data_root, pipeline=_base_.train_pipeline)
)
val_dataloader = dict(dataset=dict(type="opsin.TotalText", data_root=measured_root))
test_dataloader = val_dataloader

max_iters = 100_000
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
param_scheduler[1].milestones = [max_iters * 2 // 3, max_iters * 8 // 9]
train_cfg = dict(max_iters=max_iters)
