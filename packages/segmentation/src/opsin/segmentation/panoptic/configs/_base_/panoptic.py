# Panoptic data in COCO's format; a config adds data_root, files, training transforms and the model.
_base_ = ["opsin::runtime.py"]

task = "panoptic"
default_scope = "opsin"
tiles = dict(size=None, overlap=128)  # predict cuts pictures larger than a size that is given

train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="opsin.CocoPanoptic"),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="opsin.CocoPanoptic", test_mode=True),
)
test_dataloader = val_dataloader

val_evaluator = [dict(type="opsin.PanopticQuality")]
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
custom_hooks = [dict(type="opsin.CheckThingsAndStuff")]
default_hooks = dict(checkpoint=dict(save_best="panoptic/PQ", rule="greater"))
