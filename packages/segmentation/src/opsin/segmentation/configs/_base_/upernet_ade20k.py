# UPerNet on ADE20K with the sliding-window test of the recipes.
_base_ = ["./upernet.py", "./ade20k.py"]

crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
    test_cfg=dict(mode="slide", crop_size=crop_size, stride=(341, 341)),
)
