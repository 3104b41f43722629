# A training of a minute or less on the sample data (opsin samples medical_segmentation DIR).
_base_ = "opsin::_base_/runtime.py"
task = "medical_segmentation"
dicom_seg = False  # True: of a DICOM series also a DICOM segmentation object
train_cfg = dict(type="IterBasedTrainLoop", max_iters=150, val_interval=75)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=4e-3, weight_decay=1e-2))
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, end=150, eta_min=1e-4)]
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=75, save_best="seg/dice", rule="greater"),
)
log_processor = dict(by_epoch=False)
