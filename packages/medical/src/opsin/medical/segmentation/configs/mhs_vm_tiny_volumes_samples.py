# Grey and white matter of NIfTI volumes, slice by slice: --data DIR/volumes
_base_ = ["./_base_/volumes.py", "./_base_/short.py"]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[{{_base_.normalise}}]),
            dict(type="opsin.RandomAxialSlice"),
            dict(
                type="opsin.MonaiTransforms",
                transforms=[dict(type="RandSpatialCropd", roi_size=(64, 64), random_size=False)],
            ),
            dict(type="opsin.PackMedical"),
        ]
    ),
)
model = dict(network=dict(type="opsin.MHSVM", arch="tiny", num_classes=3))
