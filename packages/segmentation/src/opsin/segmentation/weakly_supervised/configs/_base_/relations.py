# IRN on seeds; a config adds the model's sizes and the schedule. `opsin predict` with a seed network on
# JPEGImages writes the seeds (--out SEEDS; their maps are in SEEDS/maps).
_base_ = ["./seeds.py"]

data_root = "data/VOC2012/"
seeds = dict(type="opsin.FindSeeds", folder=data_root + "seeds/maps", num_classes=20)
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadImageLabels"),
    seeds,
    dict(type="opsin.ConfidentLabels", foreground=0.3, background=0.05),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="RandomScale", scale_limit=(-0.5, 0.5), p=1.0),
            dict(type="PadIfNeeded", min_height=512, min_width=512, fill=0, fill_mask=255),
            dict(type="RandomCrop", height=512, width=512),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="opsin.PackWeak"),
]
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadImageLabels"),
    seeds,
    dict(type="opsin.LoadMask"),
    dict(type="opsin.PackWeak"),
]
predict_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.FindImageLabels"),
    seeds,
    dict(type="opsin.PackWeak"),
]
train_dataloader = dict(batch_size=32, drop_last=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(type="opsin.SeedRefinement", network=dict(type="opsin.IRN"))
