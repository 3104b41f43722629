_base_ = ["./_base_/stage1.py"]
model = dict(network=_base_.networks.vit_large, crops=dict(template_size=192, search_size=384))
train_dataloader = dict(dataset=dict(template_size=192, search_size=384, search_factor=4.5))
optim_wrapper = dict(optimizer=dict(lr=4e-4))
