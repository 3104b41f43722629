# Reflectances of four bands.
_base_ = "./sen2_mtc.py"
data_root = "data/sen2_mtc_new/"
places = dict(type="opsin.Sen2MTCNew", data_root=data_root)
train_pipeline = [
    dict(type="opsin.LoadPlace"),
    dict(type="opsin.RandomSymmetry"),
    dict(type="opsin.PackPlace"),
]
train_dataloader = dict(dataset=dict(places, ann_file="train.txt", pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(places, ann_file="val.txt"))
test_dataloader = dict(dataset=dict(places, ann_file="test.txt"))
