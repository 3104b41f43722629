# COCO 2017 without masks for 20 epochs, the shorter side anything from 400 to 1200 (RelationNet++).
_base_ = ["coco_detection_1x.py", "schedule_1x_sgd.py"]

train_pipeline = _base_.train_pipeline
train_pipeline[2].transforms[1].short = list(range(400, 1201))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=20, by_epoch=True, milestones=[16, 19], gamma=0.1),
]
train_cfg = dict(max_epochs=20)
