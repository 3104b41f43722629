# ImageNet-1K at 224 pixels, evaluated on pictures that are warped to a square of 256 pixels before the
# middle is cut out, as Agent Attention is.
_base_ = ["./imagenet_224.py"]

test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=256, crop_ratio=None),
    dict(type="Albumentations", transforms=[dict(type="CenterCrop", height=224, width=224)]),
    dict(type="PackClassification"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
