# MAYOR on Total-Text: words of any shape.
_base_ = ["_base_/mayor_text.py"]

data_root = "data/totaltext/"
dataset = dict(type="opsin.TotalText", data_root=data_root)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
