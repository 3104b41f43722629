# MAYOR on CTW1500: curved lines.
_base_ = ["_base_/mayor_text.py"]

data_root = "data/ctw1500/"
dataset = dict(type="opsin.CTW1500", data_root=data_root)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
