# The published recipe: COCO panoptic, crops of 1024 at scales 0.1 to 2, 368,750 iterations at batch 16.
_base_ = ["./_base_/coco_panoptic.py", "./_base_/frozenseg.py"]

crop = 1024
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadPanoptic"),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="HorizontalFlip", p=0.5),
            dict(type="LongestMaxSize", max_size=crop),
            dict(type="RandomScale", scale_limit=(-0.9, 1.0), p=1.0),
            dict(type="CropBetween", low=crop, high=crop),  # what is smaller is padded in the batch
        ],
    ),
    dict(type="opsin.PackPanoptic"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.Albumentations", transforms=[dict(type="ShortestEdge", short=[800], longest=1333)]),
    dict(type="opsin.PackPanoptic"),
]
train_dataloader = dict(
    batch_size=2,  # on 8 processes
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    # files: model.clip.checkpoint=… model.clip.tokenizer=bpe_simple_vocab_16e6.txt.gz model.sam.checkpoint=…
    clip=dict(arch="convnext_large_d_320", checkpoint=None, tokenizer=None),
    sam=dict(arch="vit_b", checkpoint=None),
    # True for the authors' weights, which their CUDA kernel trained (docs/systems/frozenseg.md)
    head=dict(published_kernel=False),
    classes=(),
    stuff=(),
    trained_classes=(),
    data_preprocessor=dict(
        batch_augments=[
            dict(
                type="mmdet.BatchFixedSizePad",
                size=(crop, crop),
                pad_mask=True,
                pad_seg=True,
                seg_pad_value=255,
            )
        ]
    ),
)

max_iters = 368750
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={name: dict(decay_mult=0.0) for name in ("query_", "level_embed", "void_embedding")},
    ),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [
    dict(type="MultiStepLR", milestones=[327778, 355092], gamma=0.1, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
