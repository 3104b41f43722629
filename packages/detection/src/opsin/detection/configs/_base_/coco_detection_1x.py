# COCO 2017 without masks at one scale, as mmdet's 1x schedules train.
_base_ = ["coco_instance_1x.py"]

train_pipeline = _base_.train_pipeline
train_pipeline[1] = dict(type="opsin.LoadObjects")
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(kinds=("bbox",))
test_evaluator = val_evaluator
