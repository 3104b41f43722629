# FocalNet-T with the small receptive field on ImageNet-1K as published: 300 epochs, total batch 1024, 82.1
# top-1. The other variants change arch and drop_path_rate (small 0.3, base 0.5). The config in the authors'
# repository has a fifth of this rate and five epochs of warm-up, which looks like fine-tuning; these are the
# paper's.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs_warmup_20.py"]

model = dict(network=dict(type="FocalNetClassifier", arch="tiny_srf", drop_path_rate=0.2, num_classes=1000))
