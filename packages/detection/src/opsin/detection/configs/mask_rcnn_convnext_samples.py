# Mask R-CNN small enough to learn the sample data from scratch on a CPU.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/mask_rcnn_tiny.py",
    "_base_/samples.py",
    "_base_/schedule_scratch.py",
]

train_pipeline = _base_.train_pipeline
train_pipeline[1] = dict(type="opsin.LoadObjects", with_masks=True)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(kinds=("bbox", "segm"))
test_evaluator = val_evaluator
