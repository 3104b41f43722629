# The first phase of the "sharper" model: its targets are sharpened.
_base_ = "./hat_real_x4_l1.py"
train_pipeline = _base_.train_pipeline
train_pipeline[2].sharpen = True
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
