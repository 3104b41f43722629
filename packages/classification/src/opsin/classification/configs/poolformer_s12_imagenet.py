# PoolFormer-S12 on ImageNet-1K as published: 300 epochs and ten more at the lowest rate, learning rate 1e-3
# for every 1024 images of the batch, 77.2 top-1. The other variants change arch and drop_path_rate (s36 0.2,
# m36 0.3, m48 0.4; m36 and m48 are evaluated with crop_ratio 0.95).
_base_ = ["./_base_/imagenet_224_crop_90.py", "./_base_/adamw_300_epochs.py"]

model = dict(
    network=dict(type="MetaFormerClassifier", arch="poolformer_s12", drop_path_rate=0.1, num_classes=1000)
)

train_cfg = dict(max_epochs=310)
