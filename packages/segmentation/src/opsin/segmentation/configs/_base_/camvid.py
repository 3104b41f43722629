# CamVid at 480x360 with SegNet's 11 classes (11 is void): images/{train,val}/*.png and
# annotations/{train,val}/*.png.
_base_ = ["./small_crops.py"]

data_root = "data/camvid/"
pairs = dict(
    data_root=data_root,
    classes=[
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ],
    void=(11, 255),
)
train_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"), **pairs)
)
val_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"), **pairs)
)
test_dataloader = val_dataloader
