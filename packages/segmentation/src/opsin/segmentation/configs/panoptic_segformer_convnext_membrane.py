# Panoptic SegFormer for semantic segmentation of cell membranes: both classes are stuff.
_base_ = ["opsin.segmentation.panoptic::small_semantic.py", "./_base_/membrane.py"]

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(type="opsin.LoadMask"),
            {{_base_.augmentation}},
            dict(type="opsin.RegionsAsObjects", things=0),
            dict(type="opsin.PackPanoptic"),
        ]
    )
)
model = dict(bbox_head=dict(num_things_classes=0, num_stuff_classes=2))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
