# Half as long, the authors' 1x recipe.
_base_ = ["./panoptic_segformer_r50_24e_coco.py"]

train_cfg = dict(max_epochs=12)
param_scheduler = [dict(type="MultiStepLR", milestones=[8], gamma=0.1, by_epoch=True)]
