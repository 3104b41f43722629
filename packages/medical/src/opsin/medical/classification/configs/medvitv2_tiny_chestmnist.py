# MedViTV2-T on ChestMNIST, where a picture may have any of fourteen findings; published accuracy 96.3 %.
_base_ = ["./_base_/medmnist_224.py"]

model = dict(
    type="MultiLabelClassifier", network=dict(type="MedViTV2Classifier", arch="tiny", num_classes=14)
)
train_dataloader = dict(dataset=dict(file="chestmnist_224"))
val_dataloader = dict(dataset=dict(file="chestmnist_224"))
test_dataloader = dict(dataset=dict(file="chestmnist_224"))
