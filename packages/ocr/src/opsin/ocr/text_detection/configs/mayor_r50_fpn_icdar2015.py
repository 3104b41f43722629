# MAYOR on ICDAR 2015: words as quadrilaterals, so that every outline becomes a rectangle.
_base_ = ["_base_/mayor_text.py"]

data_root = "data/icdar2015/"
dataset = dict(type="opsin.ICDAR2015", data_root=data_root)
test_pipeline = _base_.test_pipeline
test_pipeline[-2] = dict(
    type="opsin.PolygonAlbumentations", transforms=[dict(type="ShortestEdge", short=[1200], longest=2400)]
)
model = dict(test_cfg=dict(rcnn=dict(rectangles=True)))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
