# VAN-B0 on ImageNet-1K: 300 epochs and ten of cool-down, total batch 1024, 75.4 top-1 (authors). B1 and B2
# change only arch, B3 also drop_path_rate (0.2). The authors' committed models normalise pixels to mean and
# deviation 0.5; here it is ImageNet's (model.data_preprocessor), with which re-implementations reach the
# same accuracy.
_base_ = ["./_base_/imagenet_224.py"]

model = dict(network=dict(type="VANClassifier", arch="b0", drop_path_rate=0.1, num_classes=1000))
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=224, crop_ratio=0.9),
    dict(type="PackClassification"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    constructor="LayerDecayConstructor",  # its decay is 1: it only keeps weight decay off 1-D tensors
)
auto_scale_lr = dict(enable=True, base_batch_size=1024)
train_cfg = dict(by_epoch=True, max_epochs=310, val_interval=1)
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
