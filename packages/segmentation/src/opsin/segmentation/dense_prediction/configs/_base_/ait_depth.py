# AiT's depth: crops of 480, mirrored, with changed light and colour and sometimes a strip of the truth.
_base_ = ["./depth.py"]

crop = (480, 480)
train_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(type="opsin.LoadDepth"),
    dict(type="opsin.CutDepth", p=0.25),
    dict(type="opsin.RandomFlipDense"),
    dict(type="opsin.RandomCropDense", size=crop),
    dict(
        type="opsin.Albumentations",
        transforms=[
            dict(type="RandomBrightnessContrast", p=0.5),
            dict(type="RandomGamma", p=0.5),
            dict(type="HueSaturationValue", p=0.5),
        ],
    ),
    dict(type="opsin.PackDense"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
tokenizer = dict(token_length=225, mask_size=480, hidden_dim=256, tau=0.8)
