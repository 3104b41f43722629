# Training pictures are HR alone, DATA/train and its subfolders, and are reduced while training. Small ones
# are enlarged to a patch of 64 LR pixels at ×4, which is enough for every scale.
_base_ = "./x2.py"
train_dataloader = dict(
    dataset=dict(
        type="opsin.HighResolutionDataset",
        pipeline=[
            dict(type="opsin.LoadHighResolution", min_size=256),
            dict(type="opsin.RandomCropPair", size=64),
            dict(type="opsin.RandomSymmetry"),
            dict(type="opsin.PackPair"),
        ],
    )
)
