# PolyMaX with ConvNeXt-L for depth.
_base_ = ["./_base_/depth.py", "./_base_/polymax.py"]

model = dict(output={{_base_.output}})
