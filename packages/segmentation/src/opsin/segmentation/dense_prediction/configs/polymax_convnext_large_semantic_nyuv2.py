# PolyMaX with ConvNeXt-L for 40 classes.
_base_ = ["./_base_/semantic.py", "./_base_/polymax.py"]

model = dict(output={{_base_.output}})
