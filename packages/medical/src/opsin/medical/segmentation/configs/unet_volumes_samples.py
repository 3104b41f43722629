# MONAI's U-Net in three dimensions, in windows of 32 voxels: --data DIR/volumes
_base_ = ["./_base_/volumes.py", "./_base_/short.py"]
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        pipeline=[
            dict(
                type="opsin.MonaiTransforms",
                transforms=[
                    {{_base_.normalise}},
                    dict(type="RandSpatialCropd", roi_size=(32, 32, 32), random_size=False),
                ],
            ),
            dict(type="opsin.PackMedical"),
        ]
    ),
)
model = dict(
    network=dict(
        type="opsin.monai_network",
        name="UNet",
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        channels=(8, 16, 32),
        strides=(2, 2),
        num_res_units=1,
    ),
    spatial_dims=3,
    window=(32, 32, 32),
)
