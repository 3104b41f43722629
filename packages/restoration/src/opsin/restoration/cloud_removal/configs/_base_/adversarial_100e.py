# The published training: 100 epochs, both networks with AdamW, cosine to 1e-6. The teacher is the authors'
# Feature_Extrator_FS2.pth.
_base_ = "opsin::_base_/runtime.py"
model = dict(
    type="opsin.AdversarialCloudRemover",
    network=dict(type="opsin.PMAA", hidden_channels=32),
    discriminator=dict(type="opsin.CloudFreeDiscriminator", input_nc=16),
    teacher=dict(
        type="opsin.CloudTeacher",
        init_cfg=dict(type="opsin.Published", checkpoint="data/Feature_Extrator_FS2.pth"),
    ),
    tile=dict(type="opsin.BlendedTiling", size=256, overlap=64),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
adamw = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=5e-4, betas=(0.5, 0.999), weight_decay=5e-4)
)
optim_wrapper = dict(constructor="opsin.OptimizerPerModule", network=adamw, discriminator=adamw)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=100, eta_min=1e-6)]
model_wrapper_cfg = dict(type="opsin.SelfTrainingDataParallel")
default_hooks = dict(
    checkpoint=dict(interval=1, save_best=["cloud/psnr", "cloud/ssim"], rule="greater"),
)
randomness = dict(seed=2022)
