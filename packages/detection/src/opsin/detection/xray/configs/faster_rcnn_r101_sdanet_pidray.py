# SDANet on Faster R-CNN: boxes alone.
_base_ = ["mask_rcnn_r101_sdanet_pidray.py"]

model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)
train_pipeline = _base_.train_pipeline
train_pipeline[1] = dict(type="opsin.LoadObjects")
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(kinds=("bbox",))
test_evaluator = val_evaluator
