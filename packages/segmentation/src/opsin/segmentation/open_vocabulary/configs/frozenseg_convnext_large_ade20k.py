# Tests the COCO-trained model on ADE20K's panoptic json (150 classes), all of them named as text.
_base_ = ["./frozenseg_convnext_large_coco.py"]
data_root = "data/ADEChallengeData2016/"
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="ade20k_panoptic_val.json",
        data_prefix=dict(img="images/validation", seg="ade20k_panoptic_val"),
    )
)
test_dataloader = val_dataloader
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="ade20k_panoptic_train.json",
        data_prefix=dict(img="images/training", seg="ade20k_panoptic_train"),
    )
)
