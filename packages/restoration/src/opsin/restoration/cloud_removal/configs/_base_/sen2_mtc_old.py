# 8-bit pictures with near infrared beside them; the truth has three bands.
_base_ = "./sen2_mtc.py"
data_root = "data/sen2_mtc_old/"
places = dict(type="opsin.Sen2MTCOld", data_root=data_root)
train_pipeline = [
    dict(type="opsin.LoadPlace"),
    dict(type="opsin.ResizePlace", size=286),
    dict(type="opsin.RandomCropPair", size=256),
    dict(type="opsin.RandomFlipPlace"),
    dict(type="opsin.PackPlace"),
]
train_dataloader = dict(dataset=dict(places, split="train", pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(places, split="val"))
test_dataloader = dict(dataset=dict(places, split="test"))
