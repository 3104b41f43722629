_base_ = ["./panoptic_segformer_r50_24e_coco.py"]

model = dict(backbone=dict(depth=101, init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet101")))
