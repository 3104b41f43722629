_base_ = ["./frozenseg_convnext_large_coco.py"]
model = dict(clip=dict(arch="RN50x64"), only_valid_masks=True)
