# ImageNet-1K at 224 pixels, evaluated on the middle of pictures whose short side is 249 (crop ratio 0.9).
_base_ = ["./imagenet_224.py"]

test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=224, crop_ratio=0.9),
    dict(type="PackClassification"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
