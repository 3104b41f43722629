# COCO panoptic in its published layout, with the data's class names as text.
_base_ = ["opsin.segmentation.panoptic::coco_panoptic.py"]

task = "open_vocabulary"
custom_hooks = [dict(type="opsin.ClassNames")]
val_evaluator = [dict(type="opsin.PanopticQuality"), dict(type="opsin.SemanticIoU")]
test_evaluator = val_evaluator
