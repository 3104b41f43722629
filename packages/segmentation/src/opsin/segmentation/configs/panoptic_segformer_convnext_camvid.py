# Panoptic SegFormer for maps of classes on CamVid: connected regions of the countable classes are things.
_base_ = ["opsin.segmentation.panoptic::small_semantic.py", "./_base_/camvid.py"]

# things come first; the labels in the masks are CamVid's
classes = dict(
    classes=[
        "car",
        "pedestrian",
        "bicyclist",
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
    ],
    label_values=(8, 9, 10, 0, 1, 2, 3, 4, 5, 6, 7),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(type="opsin.LoadMask"),
            {{_base_.augmentation}},
            dict(type="opsin.RegionsAsObjects", things=3),
            dict(type="opsin.PackPanoptic"),
        ],
        **classes,
    )
)
val_dataloader = dict(dataset=classes)
test_dataloader = val_dataloader
model = dict(bbox_head=dict(num_things_classes=3, num_stuff_classes=8))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
