# TiC on ImageNet-1K. No network, recipe or accuracy is published; both are chosen, the recipe is DeiT's.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="TiCClassifier", arch="tiny", drop_path_rate=0.1, num_classes=1000))
