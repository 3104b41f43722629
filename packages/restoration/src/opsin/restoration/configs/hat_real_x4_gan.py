# The second phase of real-world training, against a discriminator, after hat_real_x4_l1 (load_from=…).
# The perceptual loss needs torchvision's vgg19-dcbb9e9d.pth.
_base_ = ["./_base_/real_x4.py", "./_base_/schedule_1000k.py"]
model = dict(
    type="opsin.RealWorldSuperResolver",
    discriminator=dict(type="opsin.UNetDiscriminatorSN", num_in_ch=3),
    gan_loss=dict(type="opsin.VanillaGANLoss", loss_weight=0.1),
    perceptual_loss=dict(type="opsin.PerceptualLoss", checkpoint="data/vgg19-dcbb9e9d.pth"),
)
train_cfg = dict(max_iters=400_000)
adam = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.99)))
optim_wrapper = dict(_delete_=True, constructor="opsin.OptimizerPerModule", network=adam, discriminator=adam)
model_wrapper_cfg = dict(type="opsin.SelfTrainingDataParallel")
custom_hooks = [dict(type="opsin.ModuleEMAHook", ema_type="ExponentialMovingAverage", momentum=0.001)]
default_hooks = dict(checkpoint=dict(save_best=None))  # it trades PSNR for detail, so the last one counts
