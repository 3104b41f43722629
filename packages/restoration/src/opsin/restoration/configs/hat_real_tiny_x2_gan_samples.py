# The second phase, after hat_real_tiny_x2_samples: load_from=CHECKPOINT. There is no perceptual loss, whose
# weights a beginner does not have.
_base_ = "./hat_real_tiny_x2_samples.py"
model = dict(
    type="opsin.RealWorldSuperResolver",
    discriminator=dict(type="opsin.UNetDiscriminatorSN", num_in_ch=3, num_feat=16),
)
train_cfg = dict(max_iters=100)
adam = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=5e-4, betas=(0.9, 0.99)))
optim_wrapper = dict(_delete_=True, constructor="opsin.OptimizerPerModule", network=adam, discriminator=adam)
param_scheduler = []
model_wrapper_cfg = dict(type="opsin.SelfTrainingDataParallel")
custom_hooks = [dict(type="opsin.ModuleEMAHook", ema_type="ExponentialMovingAverage", momentum=0.05)]
default_hooks = dict(checkpoint=dict(save_best=None))
