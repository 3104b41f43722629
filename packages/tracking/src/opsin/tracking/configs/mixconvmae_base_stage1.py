_base_ = ["./_base_/stage1.py"]
model = dict(network=_base_.networks.convmae, crops=dict(template_size=128, search_size=288))
train_dataloader = dict(dataset=dict(template_size=128, search_size=288, search_factor=4.5))
optim_wrapper = dict(optimizer=dict(lr=4e-4))
