# MedViTV2-T on PathMNIST (nine tissues): published accuracy 95.9 %.
_base_ = ["./_base_/medmnist_224.py"]

model = dict(network=dict(type="MedViTV2Classifier", arch="tiny", num_classes=9))
train_dataloader = dict(dataset=dict(file="pathmnist_224"))
val_dataloader = dict(dataset=dict(file="pathmnist_224"))
test_dataloader = dict(dataset=dict(file="pathmnist_224"))
