# MedViTV2-T on the cells of BCCD's blood smears, cut out by their boxes; trained from scratch, so with the
# clean layout. Data: BCCD in Pascal VOC's layout, which opsin-detection reads. Of the many red cells 300.
_base_ = ["./_base_/medmnist_224.py"]

custom_imports = dict(imports=["opsin.detection.datasets"])
data_root = "data/bccd/"
classes = ("Platelets", "RBC", "WBC")
model = dict(network=dict(type="MedViTV2Classifier", arch="tiny", num_classes=3, layout="clean"))
_cut = [dict(type="LoadImage"), dict(type="CropToBox", size=112)]
_flips = dict(
    type="Albumentations", transforms=[dict(type="HorizontalFlip", p=0.5), dict(type="VerticalFlip", p=0.5)]
)
_pack = dict(type="PackClassification")
_crops = dict(_delete_=True, type="ObjectCrops", most=300)
_smears = dict(
    type="opsin.PascalVOC", data_root=data_root, metainfo=dict(classes=classes), drop_bad_boxes=True
)
train_dataloader = dict(
    num_workers=1,
    dataset=dict(**_crops, source=dict(**_smears, split="train"), pipeline=[*_cut, _flips, _pack]),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(**_crops, source=dict(**_smears, split="val"), pipeline=[*_cut, _pack], test_mode=True),
)
test_dataloader = val_dataloader
predict_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=112, crop_ratio=None),
    dict(type="PackClassification"),
]
train_cfg = dict(max_epochs=10, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(end=10, T_max=10, convert_to_iter_based=True, type="CosineAnnealingLR", by_epoch=True, begin=0)
]
