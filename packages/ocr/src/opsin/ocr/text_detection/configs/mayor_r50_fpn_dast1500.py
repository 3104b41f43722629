# MAYOR on DAST1500: dense and curved lines, up to 300 in a picture.
_base_ = ["_base_/mayor_text.py"]

data_root = "data/dast1500/"
dataset = dict(type="opsin.DAST1500", data_root=data_root)
model = dict(test_cfg=dict(rcnn=dict(max_per_img=300)))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
