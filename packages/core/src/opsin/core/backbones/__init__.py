"""Published backbones: one file or folder a system; importing this package registers them all."""

from importlib import import_module

SYSTEMS = (
    "agent_attention",
    "convnext",
    "crossvit",
    "davit",
    "eca_net",
    "efficientvit",
    "focalnet",
    "gaussian_adaptive_attention",
    "gaussian_mixture_mask",
    "halonet",
    "illama",
    "mambamixer",
    "mambaout",
    "maxvit",
    "moh",
    "msvmamba",
    "ninformer",
    "poolformer",
    "shvit",
    "smt",
    "tic",
    "van",
    "vim",
    "vsa",
)

for _name in SYSTEMS:
    import_module(f"{__name__}.{_name}")
