# Panoptic SegFormer with ResNet-50, the authors' 2x recipe.
_base_ = ["./_base_/coco_panoptic.py", "./_base_/schedule_24e.py"]

model = dict(
    type="opsin.PanopticSegFormer",
    backbone=dict(
        type="mmdet.ResNet",
        depth=50,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
    ),
    in_channels=(512, 1024, 2048),
    bbox_head=dict(num_things_classes=80, num_stuff_classes=53),
)
