# MAYOR on MSRA-TD500: long lines at any angle as turned rectangles.
_base_ = ["_base_/mayor_text.py"]

data_root = "data/msratd500/"
dataset = dict(type="opsin.MSRATD500", data_root=data_root)
test_pipeline = _base_.test_pipeline
test_pipeline[-2] = dict(
    type="opsin.PolygonAlbumentations", transforms=[dict(type="ShortestEdge", short=[800], longest=2400)]
)
model = dict(test_cfg=dict(rcnn=dict(rectangles=True)))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
