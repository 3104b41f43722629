# Vessels of the retina: --data DIR/isic. Standardised pictures are learned from sooner than 0 to 255.
_base_ = ["./_base_/isic.py", "./_base_/short.py"]
classes = ("background", "vessel")
standardise = dict(type="NormalizeIntensityd", keys="img", channel_wise=True)
flip = dict(type="RandFlipd", prob=0.5, spatial_axis=1)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        classes=classes,
        cache_num=40,
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[standardise, flip]),
            dict(type="opsin.PackMedical"),
        ],
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        classes=classes,
        pipeline=[
            dict(type="opsin.MonaiTransforms", transforms=[standardise]),
            dict(type="opsin.PackMedical"),
        ],
    ),
)
test_dataloader = val_dataloader
model = dict(network=dict(arch="tiny"))
