_base_ = "./x2.py"
train_dataloader = dict(dataset=dict(scale=3))
val_dataloader = dict(dataset=dict(scale=3))
test_dataloader = val_dataloader
val_evaluator = dict(crop_border=3)
test_evaluator = val_evaluator
model = dict(network=dict(upscale=3))
