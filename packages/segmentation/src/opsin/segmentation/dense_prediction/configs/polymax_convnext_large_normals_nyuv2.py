# PolyMaX with ConvNeXt-L for surface normals.
_base_ = ["./_base_/normals.py", "./_base_/polymax.py"]

model = dict(output={{_base_.output}})
