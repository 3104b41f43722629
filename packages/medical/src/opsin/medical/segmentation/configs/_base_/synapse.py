# Abdominal organs. Data: TransUNet's preparation of Synapse, train_npz/, test_vol_h5/ and lists/.
_base_ = "./loaders.py"
data_root = "data/Synapse/"
classes = (
    "background",
    "aorta",
    "gallbladder",
    "left kidney",
    "right kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)
channels = 1
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    drop_last=True,
    sampler=dict(type="DefaultSampler"),
    dataset=dict(
        type="opsin.SynapseDataset",
        split="train",
        data_root=data_root,
        classes=classes,
        pipeline=[
            dict(type="opsin.RandomTurnOrRotation"),
            dict(type="opsin.ZoomSlice", size=(224, 224)),
            dict(type="opsin.PackMedical"),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="opsin.SynapseDataset",
        split="test",
        data_root=data_root,
        classes=classes,
        pipeline=[dict(type="opsin.PackMedical")],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="opsin.OverlapSurfaceMetric", classes=classes, protocol="synapse")
test_evaluator = val_evaluator
model = dict(
    type="opsin.MedicalSegmentor",
    network=dict(type="opsin.MHSVM", num_classes=9),
    loss=dict(type="opsin.CEDiceLoss", ce_weight=1.0, dice_weight=1.0),
    slice_size=(224, 224),
    batch_size=8,
)
