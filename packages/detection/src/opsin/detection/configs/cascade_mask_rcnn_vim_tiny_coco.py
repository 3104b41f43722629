# Cascade Mask R-CNN on Vim-Ti as published, in ViTDet's manner: a simple feature pyramid on the last block's
# stream, images of 1024 x 1024 under large-scale jitter, 184375 iterations of 64 images.
# Comments below say where mmdet's classes cannot say what the authors' detectron2 does.
_base_ = [
    "_base_/runtime_mmdet.py",
    "_base_/cascade_mask_rcnn_convnext.py",
    "_base_/coco_instance.py",
]

side = 1024
# As published, the heads normalise the channels of each pixel.
norm_cfg = dict(type="opsin.LayerNorm2d", eps=1e-6)

box_heads = _base_.model.roi_head.bbox_head
for head, weight in zip(box_heads, (10, 20, 30), strict=True):
    head.update(
        reg_class_agnostic=True,
        reg_decoded_bbox=False,
        norm_cfg=norm_cfg,
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    )
    # detectron2 multiplies by weights (w, w, w / 2, w / 2) where mmdet divides by standard deviations.
    head.bbox_coder.target_stds = [1 / weight, 1 / weight, 2 / weight, 2 / weight]

model = dict(
    # Images are resized to 1024 pixels at the longer side, so this makes them all squares, as the rotary
    # positions were trained.
    data_preprocessor=dict(pad_size_divisor=side),
    backbone=dict(
        _delete_=True,
        type="opsin.VisionMamba",
        arch="tiny",
        img_size=side,
        out_indices=(23,),
        fpn=False,
        use_residual_as_feature=True,
        last_layer_process="add",
        rope=True,
        rope_residual=True,
        drop_path_rate=0.1,
    ),
    neck=dict(_delete_=True, type="opsin.SimpleFeaturePyramid", in_channels=192, out_channels=256),
    rpn_head=dict(num_convs=2, loss_bbox=dict(_delete_=True, type="L1Loss", loss_weight=1.0)),
    roi_head=dict(
        stage_loss_weights=[1, 1, 1],
        bbox_head=box_heads,
        # mmdet trains one mask head a stage and averages them; the published model has one, on the proposals.
        mask_head=dict(norm_cfg=norm_cfg),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=1000)),
)

train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects", with_masks=True),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="HorizontalFlip", p=0.5),
            # The image fits into a square of 0.1 to 2 times 1024.
            dict(type="LongestMaxSize", max_size=list(range(side // 10, 2 * side + 1))),
            dict(type="PadIfNeeded", min_height=side, min_width=side, position="top_left", fill=128),
            dict(type="RandomCrop", height=side, width=side),
        ],
    ),
    dict(type="opsin.PackDetection"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadObjects"),
    dict(type="opsin.Albumentations", transforms=[dict(type="LongestMaxSize", max_size=side)]),
    dict(type="opsin.PackDetection"),
]
# 64 images an iteration on all processes together: with 8 of them, batch_size=8.
train_dataloader = dict(
    batch_size=64,
    sampler=dict(type="InfiniteSampler"),
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 184375
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    # detectron2's AMP is float16, and NaN losses under AMP are a known complaint (hustvl/Vim, issue 30);
    # bfloat16 has float32's range. The scan and the residual stream stay in float32 either way.
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    # No weight decay on pos_embed, as published; nor, other than published, on norms, biases and A_log.
    constructor="opsin.LayerDecayConstructor",
    paramwise_cfg=dict(decay=0.837),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=max_iters, milestones=[163889, 177546], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False, window_size=50)
