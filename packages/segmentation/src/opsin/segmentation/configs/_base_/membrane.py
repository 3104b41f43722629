# Cell membranes in electron microscopy (ISBI 2012), 20 slices of 512x512: images/*.png, and masks/*.png, 255
# inside the cells and 0 on membranes. All are of one volume; 5 to 9 (last by name) are val.
_base_ = ["./small_crops.py"]

data_root = "data/membrane/"
pairs = dict(
    data_root=data_root,
    data_prefix=dict(img_path="images", seg_map_path="masks"),
    classes=["membrane", "cell"],
    label_values=(0, 255),
    void=(),
)
train_dataloader = dict(dataset=dict(indices=list(range(15)), **pairs))
val_dataloader = dict(dataset=dict(indices=list(range(15, 20)), **pairs))
test_dataloader = val_dataloader
