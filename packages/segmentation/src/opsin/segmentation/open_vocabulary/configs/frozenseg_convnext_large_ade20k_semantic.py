# Tests on ADE20K's semantic masks, or on any data set of opsin.MaskPairs: classes by their names.
_base_ = ["opsin.segmentation::ade20k.py", "./_base_/frozenseg.py"]

task = "open_vocabulary"
custom_hooks = [dict(type="opsin.ClassNames")]
model = dict(
    clip=dict(arch="convnext_large_d_320", checkpoint=None, tokenizer=None),
    sam=dict(arch="vit_b", checkpoint=None),
    head=dict(published_kernel=False),
    classes=(),
    trained_classes=(),
)
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.Albumentations", transforms=[dict(type="ShortestEdge", short=[640], longest=2560)]),
    dict(type="opsin.LoadMask"),
    dict(type="mmseg.PackSegInputs"),
]
train_dataloader = None  # the model trains on things and stuff: frozenseg_convnext_large_coco
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
