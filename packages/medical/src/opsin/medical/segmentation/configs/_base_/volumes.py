# Volumes and their labels. Data: DATA/train and DATA/val, each with images/ and labels/.
_base_ = "./loaders.py"
data_root = "data/volumes/"
classes = ("background", "grey matter", "white matter")
channels = 1
normalise = dict(type="NormalizeIntensityd", keys="img", nonzero=True)
train_dataloader = dict(
    dataset=dict(type="opsin.VolumeDataset", data_root=data_root + "train", classes=classes, cache_num=16),
)
val_dataloader = dict(
    dataset=dict(
        type="opsin.VolumeDataset",
        data_root=data_root + "val",
        classes=classes,
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[normalise]),
            dict(type="opsin.PackMedical"),
        ],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.OverlapSurfaceMetric", classes=classes)
test_evaluator = val_evaluator
model = dict(type="opsin.MedicalSegmentor", loss=dict(type="opsin.CEDiceLoss"), batch_size=8)
