# Training for photographs as people have them: pictures are HR alone, DATA/train/HR and DATA/val/HR, and are
# degraded while training. What the validation pictures lose follows from the seed, so it is always the same.
_base_ = "./x4.py"
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="RandomCrop", height=400, width=400, pad_if_needed=True, border_mode=4),  # mirrored
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="opsin.RealWorldDegradation"),
    dict(type="opsin.RandomCropPair", size=64),
    dict(type="opsin.PackPair"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.RealWorldDegradation"),
    dict(type="opsin.PackPair"),
]
predict_pipeline = [dict(type="opsin.PackPair")]
train_dataloader = dict(
    num_workers=5,  # a patch takes one core an eighth of a second
    dataset=dict(type="opsin.HighResolutionDataset", hr_dir="HR", pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(type="opsin.HighResolutionDataset", hr_dir="HR", pipeline=test_pipeline))
test_dataloader = val_dataloader
