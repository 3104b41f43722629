# The paper's last stage: backbone, neck and decoder together on four data sets, at 1024 pixels. Begin with
# load_from=CHECKPOINT of a distilled encoder with Segment Anything's prompt encoder.
# DATA holds coconut/, entityseg/, DIS5K/ and SA-1B/, each as it unpacks.
_base_ = ["./_base_/masks.py"]

data_root = "data/promptable/"
image_size = 1024
load = [dict(type="opsin.LoadImage"), dict(type="opsin.LoadMasks")]
augment = [
    dict(
        type="opsin.Albumentations",
        transforms=[dict(type="HorizontalFlip", p=0.5), dict(type="LongestMaxSize", max_size=image_size)],
    ),
    dict(type="opsin.PackPrompts"),
]
train_pipeline = load + augment
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(
        type="opsin.Albumentations",
        transforms=[dict(type="LongestMaxSize", max_size=image_size)],
    ),
    dict(type="opsin.LoadMasks"),
    dict(type="opsin.PackPrompts"),
]
coconut = dict(
    type="opsin.CocoPanopticMasks",
    data_root=data_root + "coconut",
    ann_file="annotations/coconut_b.json",
    data_prefix=dict(img="train2017", seg="coconut_b"),
    pipeline=train_pipeline,
)
entityseg = dict(
    type="opsin.CocoMasks",
    data_root=data_root + "entityseg",
    ann_file="annotations/entityseg_insseg_train.json",
    data_prefix=dict(img="images"),
    pipeline=train_pipeline,
)
dis5k = dict(type="opsin.DIS5K", data_root=data_root + "DIS5K", split="DIS-TR", pipeline=train_pipeline)
sa1b = dict(type="opsin.SA1B", data_root=data_root + "SA-1B", pipeline=train_pipeline)
train_dataloader = dict(
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            coconut,
            dict(type="RepeatDataset", dataset=entityseg, times=4),
            dict(type="RepeatDataset", dataset=dis5k, times=40),
            sa1b,
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        type="opsin.DIS5K",
        data_root=data_root + "DIS5K",
        split="DIS-VD",
        pipeline=test_pipeline,
        test_mode=True,
    )
)
test_dataloader = val_dataloader

model = dict(
    type="opsin.RWKVSAM",
    arch="small",
    image_size=image_size,
    data_preprocessor=dict(type="opsin.PromptPreprocessor", image_size=image_size, mode="mixed"),
)

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2.5e-5, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [dict(type="MultiStepLR", milestones=[8, 11], by_epoch=True)]
