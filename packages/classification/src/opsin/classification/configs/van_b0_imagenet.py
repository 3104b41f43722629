# VAN-B0 on ImageNet-1K: 300 epochs and ten of cool-down, total batch 1024, 75.4 top-1 (authors). B1 and B2
# change only arch, B3 also drop_path_rate (0.2). The authors' committed models normalise pixels to mean and
# deviation 0.5; here it is ImageNet's (model.data_preprocessor), with which re-implementations reach the
# same accuracy.
_base_ = ["./_base_/imagenet_224_crop_90.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="VANClassifier", arch="b0", drop_path_rate=0.1, num_classes=1000))

train_cfg = dict(max_epochs=310)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=5,
        end=300,
        T_max=295,
        convert_to_iter_based=True,
    ),
]
