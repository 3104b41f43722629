# After hat_real_x4_l1_sharper. Targets of L1 and perceptual loss are sharpened, the real pictures that the
# discriminator sees are not.
_base_ = "./hat_real_x4_gan.py"
train_pipeline = _base_.train_pipeline
train_pipeline[2].sharpen = True
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
