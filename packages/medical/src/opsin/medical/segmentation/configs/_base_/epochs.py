# Training by epochs, a validation after each, the best checkpoint by Dice.
_base_ = "opsin::_base_/runtime.py"
task = "medical_segmentation"
dicom_seg = False  # True: of a DICOM series also a DICOM segmentation object
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(save_best="seg/dice", rule="greater"))
