# A Gaussian adaptive head on the four maps of a frozen, untrained ConvNeXt, on the sample data set. Features
# are computed in the first epoch and read from `cache` after; which maps matter stands in
# importance_factors.csv in the work directory.
_base_ = ["./_base_/samples.py"]

train_pipeline = [
    dict(type="LoadImage"),  # nothing random, so that features can be kept
    dict(type="EvaluationCrop", size=64, crop_ratio=1.0),
    dict(type="PackClassification"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

model = dict(
    network=dict(
        type="FrozenEncoderClassifier",
        encoder=dict(type="opsin.ConvNeXt", arch=dict(depths=(1, 1, 1, 1), dims=(256, 256, 256, 256))),
        head=dict(type="opsin.GATHead", num_heads=1, hidden_dim=128),
        num_classes=4,
        cache="data/features",
    ),
)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1000.0),
)
custom_hooks = [dict(type="ImportanceFactors")]
activation_map = False  # the encoder has no gradients to follow back to the picture
