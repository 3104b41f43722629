# The paper's image experiment, CIFAR-100, on a backbone of ours: the head that weighs 24 layers of 1024
# features, eight heads, 2.7 million weights that learn. Its encoder was BEiT-Large; here it is iLLaMA-L,
# whose published weights must be given with
# model.network.encoder.init_cfg.type=opsin.Published model.network.encoder.init_cfg.checkpoint=FILE
# Pictures are not augmented, so each is encoded once; features of all 60,000 take 6 GB in `cache`.
_base_ = ["./_base_/image_folder.py"]

data_root = "data/cifar/"
pipeline = [
    dict(type="LoadImage"),
    dict(type="EvaluationCrop", size=224, crop_ratio=1.0),
    dict(type="PackClassification"),
]
cifar = dict(_delete_=True, type="CIFAR", classes=100, data_root=data_root, pipeline=pipeline)
train_dataloader = dict(batch_size=32, drop_last=False, dataset=dict(split="train", **cifar))
val_dataloader = dict(batch_size=32, dataset=dict(split="test", test_mode=True, **cifar))
test_dataloader = val_dataloader

model = dict(
    network=dict(
        type="FrozenEncoderClassifier",
        encoder=dict(
            type="opsin.ILLaMA", arch="large", out_indices=list(range(24)), fpn=False, init_cfg=None
        ),
        head=dict(type="opsin.GATHead", num_heads=8),
        num_classes=100,
        cache="data/features",
    ),
)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-5, weight_decay=0.01),
    clip_grad=dict(max_norm=1000.0),
)
train_cfg = dict(by_epoch=True, max_epochs=35, val_interval=1)
param_scheduler = dict(
    type="ReduceOnPlateauLR", monitor="accuracy/top1", rule="greater", factor=0.1, patience=10
)
custom_hooks = [dict(type="ImportanceFactors")]
activation_map = False  # the encoder has no gradients to follow back to the picture
