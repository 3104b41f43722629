# ViM2-T on ImageNet-1K. No recipe was published: this is Swin's, 300 epochs at total batch 1024, and the drop
# path rate is its too. Small and mlp change arch and drop_path_rate=0.3, base drop_path_rate=0.5.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs_warmup_20.py"]

model = dict(network=dict(type="ViM2Classifier", arch="tiny", drop_path_rate=0.2, num_classes=1000))
