# 12 epochs of COCO at 16 images an iteration with SGD, mmdet's 1x schedule of ResNets.
_base_ = ["schedule_1x.py"]

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
)
