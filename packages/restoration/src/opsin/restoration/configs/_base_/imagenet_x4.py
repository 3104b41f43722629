_base_ = "./imagenet_x2.py"
train_dataloader = dict(dataset=dict(scale=4))
val_dataloader = dict(dataset=dict(scale=4))
test_dataloader = val_dataloader
val_evaluator = dict(crop_border=4)
test_evaluator = val_evaluator
model = dict(network=dict(upscale=4))
