"""Published backbones: one file or folder a system; importing this package registers them all."""

from importlib import import_module

SYSTEMS = ("convnext", "vim")

for _name in SYSTEMS:
    import_module(f"{__name__}.{_name}")
