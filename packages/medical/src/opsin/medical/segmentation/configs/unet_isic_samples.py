# MONAI's U-Net in MHS-VM's place.
_base_ = "./mhs_vm_tiny_isic_samples.py"
model = dict(
    network=dict(
        _delete_=True,
        type="opsin.monai_network",
        name="UNet",
        spatial_dims=2,
        in_channels=3,
        out_channels=1,
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=1,
    )
)
