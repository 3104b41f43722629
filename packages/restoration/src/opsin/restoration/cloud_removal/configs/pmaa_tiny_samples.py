# A training of a minute on the sample data set (opsin samples cloud_removal DIR): no discriminator, and
# attention towards masks made of the truth, because a beginner has no teacher.
_base_ = ["./_base_/sen2_mtc_new.py", "opsin::_base_/runtime.py"]
model = dict(
    type="opsin.CloudRemover",
    white=2000,  # land alone: the metric cuts there too, and a short training has no time to find the level
    network=dict(type="opsin.PMAA", hidden_channels=8),
    teacher=dict(type="opsin.DifferenceTeacher"),
    aux_weight=50.0,
    tile=dict(type="opsin.BlendedTiling", size=256, overlap=64),
)
train_dataloader = dict(num_workers=1)  # no crops: dilated convolutions see more of a larger picture
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=10, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2, weight_decay=5e-4))
param_scheduler = [dict(type="CosineAnnealingLR", T_max=10, eta_min=1e-5)]
default_hooks = dict(checkpoint=dict(interval=5, save_best="cloud/psnr", rule="greater"))
