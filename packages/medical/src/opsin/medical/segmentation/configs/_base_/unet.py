# MONAI's U-Net for grey slices and yes or no.
model = dict(
    type="opsin.MedicalSegmentor",
    network=dict(
        type="opsin.monai_network",
        name="UNet",
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=1,
    ),
    loss=dict(type="opsin.BCEDiceLoss"),
)
