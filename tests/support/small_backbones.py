"""Opsin's backbones, small, as configs name them: the same arguments make the classifier of the family.

A key is the system's module, with a host after a dot where one system has several. Small means a few thousand
parameters and a forward of milliseconds at 64 pixels.
"""

from typing import Any

from opsin.core.backbones.backbone import Backbone, Classifier
from opsin.registry import MODELS

BACKBONES: dict[str, dict[str, Any]] = {
    "agent_attention": {
        "type": "opsin.AgentPVT",
        "arch": {
            "depths": (1, 1, 2, 1),
            "embed_dims": (8, 8, 16, 16),
            "num_heads": (1, 2, 2, 4),
            "mlp_ratios": (2, 2, 2, 2),
            "agent_num": (4, 4, 9, 9),
            "attn_type": "AAMB1",
            "sr_ratios": (4, 2, 2, 1),
            "agent_sr_ratios": (1, 2, 1, 1),
        },
        "img_size": 64,
    },
    "agent_attention.swin": {
        "type": "opsin.AgentSwin",
        "arch": {
            "embed_dim": 4,
            "depths": (1, 1, 2, 2),
            "num_heads": (1, 2, 2, 4),
            "agent_num": (4, 4, 9, 9),
            "attn_type": "AAMB1",
        },
        "img_size": 64,
        "window_size": 3,
        "mlp_ratio": 2,
    },
    "agent_attention.cswin": {
        "type": "opsin.AgentCSWin",
        "arch": {
            "embed_dim": 4,
            "depths": (1, 1, 2, 1),
            "num_heads": (2, 2, 2, 4),
            "agent_num": (4, 4, 9, 9),
            "attn_type": "AAMB1",
        },
        "img_size": 64,
        "split_size": (1, 2, 3, 3),
        "agent_split_size": (16, 3, 4, 2),
        "mlp_ratio": 2,
    },
    "convnext": {
        "type": "opsin.ConvNeXt",
        "arch": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
        "layer_scale_init_value": 1.0,
    },
    "crossvit": {
        "type": "opsin.CrossViT",
        "arch": {
            "embed_dim": (8, 16),
            "depth": ((1, 2, 0), (1, 1, 0)),
            "num_heads": (2, 2),
            "mlp_ratio": (2, 2),
        },
        "img_size": (60, 48),
    },
    "davit": {
        "type": "opsin.DaViT",
        "arch": {
            "depths": (1, 1, 1, 1),
            "embed_dims": (8, 8, 16, 16),
            "num_heads": (1, 2, 2, 4),
            "window_size": 3,
            "overlapped_patch": False,
        },
    },
    "mambamixer": {
        "type": "opsin.ViM2",
        "arch": {"dim": 8, "depths": (1, 1, 2, 1), "channel_mixer": "selective"},
        "channel_length": 9,
    },
    "mambaout": {
        "type": "opsin.MambaOut",
        "arch": {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20)},
    },
    "maxvit": {
        "type": "opsin.MaxViT",
        "arch": {"stem_width": 8, "depths": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16)},
        "window_size": 3,
        "grid_size": (2, 3),
        "head_dim": 4,
    },
    "moh": {
        "type": "opsin.MoHViT",
        "arch": {
            "embed_dims": (8, 16, 16, 24),
            "depths": (1, 1, 2, 1),
            "num_heads": (2, 4, 4, 6),
            "shared_heads": (2, 1, 0, 2),
            "routed_heads": (0, 2, 2, 2),
            "mlp_ratios": (2, 2, 2, 2),
        },
    },
    "msvmamba": {
        "type": "opsin.MSVMamba",
        "arch": {"dims": 8, "depths": (1, 1, 1, 1)},
        "squeeze_excite": False,  # its ReLU may shut all of so few channels
    },
    "smt": {
        "type": "opsin.SMT",
        "arch": {
            "embed_dims": (8, 12, 16, 20),
            "depths": (1, 1, 2, 1),
            "mlp_ratios": (2, 2, 2, 2),
            "ca_num_heads": (2, 2, 2, -1),
            "sa_num_heads": (-1, -1, 2, 2),
            "ca_attentions": (1, 1, 1, 0),
            "head_conv": 3,
        },
        "layer_scale_init_value": 0.5,
    },
    "van": {
        "type": "opsin.VAN",
        "arch": {"embed_dims": (8, 12, 16, 20), "depths": (1, 1, 2, 1), "mlp_ratios": (2, 2, 2, 2)},
    },
    "efficientvit": {
        "type": "opsin.EfficientViT",
        "arch": {
            "dims": (16, 24, 32),
            "depths": (1, 1, 2),
            "num_heads": (2, 3, 2),
            "key_dims": (4, 4, 4),
            "kernels": (5, 3, 3),
        },
    },
    "shvit": {
        "type": "opsin.SHViT",
        "arch": {"dims": (16, 24, 32), "depths": (1, 2, 1), "partial_dims": (4, 6, 8)},
    },
    "focalnet": {
        "type": "opsin.FocalNet",
        "arch": {"depths": (1, 1, 2, 1), "embed_dim": 8, "mlp_ratio": 2.0},
    },
    "illama": {
        "type": "opsin.ILLaMA",
        "arch": {"embed_dim": 8, "depth": 4, "num_heads": 2},
        "mlp_ratio": 1,
        "img_size": 96,
    },
    "eca_net": {
        "type": "opsin.ECAResNet",
        "arch": {
            "block": "bottleneck",
            "depths": (1, 1, 2, 1),
            "widths": (4, 4, 8, 8),
            "k_sizes": (3, 3, 5, None),
        },
    },
    "gaussian_mixture_mask": {
        "type": "opsin.MaskedViT",
        "arch": {"embed_dim": 16, "depth": 4, "num_heads": 2, "head_dim": 4, "mlp_ratio": 2},
        "img_size": 64,
    },
    "gaussian_mixture_mask.swin": {
        "type": "opsin.MaskedSwin",
        "arch": {
            "embed_dim": 8,
            "depths": (2, 1, 2, 1),
            "num_heads": (1, 2, 2, 2),
            "window_size": 3,
            "mlp_ratio": 2,
        },
        "img_size": 64,
        "patch_size": 4,
    },
    "gaussian_mixture_mask.cait": {
        "type": "opsin.MaskedCaiT",
        "arch": {
            "embed_dim": 16,
            "depth": 4,
            "cls_depth": 1,
            "num_heads": 2,
            "head_dim": 4,
            "hidden_dim": 16,
        },
        "img_size": 64,
    },
    "gaussian_mixture_mask.pit": {
        "type": "opsin.MaskedPiT",
        "arch": {
            "embed_dim": 8,
            "depths": (1, 2, 1),
            "num_heads": (1, 2, 2),
            "head_dim": 6,
            "mlp_ratio": 2,
        },
        "img_size": 64,
        "mask": "none",  # the class token reads the last block past the mask, which then has no gradient
    },
    "gaussian_mixture_mask.t2t": {
        "type": "opsin.MaskedT2T",
        "arch": {"embed_dim": 16, "depth": 4, "num_heads": 2, "mlp_ratio": 2, "token_dim": 8},
        "img_size": 64,
    },
    "halonet": {
        "type": "opsin.HaloNet",
        "arch": {
            "stem": "tiered",
            "blocks": ("B", "BA", "A", "A"),
            "widths": (8, 8, 16, 16),
            "out_widths": (8, 16, 16, 24),
            "block_size": 4,
            "halo_size": 1,
            "num_heads": (2, 2, 2, 2),
            "value_ratio": 1.5,
            "channel_attention": "se",
            "final_width": 32,
        },
    },
    "poolformer": {
        "type": "opsin.MetaFormer",
        "arch": {"layers": (1, 1, 2, 1), "embed_dims": (8, 12, 16, 24), "layer_scale_init_value": 1.0},
    },
    "tic": {
        "type": "opsin.TiC",
        "arch": {
            "dims": (8, 8, 16, 16),
            "depths": (1, 2, 1, 1),
            "num_heads": (2, 2, 2, 4),
            "kernel_sizes": (5, 3, 3, 3),
        },
    },
    "vim": {
        "type": "opsin.VisionMamba",
        "arch": {"embed_dim": 16, "depth": 4},
        "img_size": 96,
    },
    "vsa": {
        "type": "opsin.ViTAEv2VSA",
        "arch": {
            "embed_dims": (4, 4, 8, 8),
            "token_dims": (8, 8, 16, 16),
            "nc_depth": (1, 1, 2, 1),
            "nc_heads": (2, 2, 2, 4),
            "rc_heads": (2, 2, 2, 4),
            "nc_group": (1, 2, 4, 8),
            "rc_group": (1, 2, 4, 4),
            "window_size": 3,
            "mlp_ratio": 2,
        },
    },
    "vsa.swin": {
        "type": "opsin.SwinVSA",
        "arch": {"embed_dim": 4, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)},
        "window_size": 3,
        "mlp_ratio": 2,
    },
}


def small_backbone(name: str, **changes: Any) -> Backbone:
    """The small backbone of a system."""
    return MODELS.build({**BACKBONES[name], **changes})


def small_classifier(name: str, **changes: Any) -> Classifier:
    """The classifier of the same settings, of four classes."""
    config = BACKBONES[name]
    return MODELS.build({**config, "type": f"{config['type']}Classifier", "num_classes": 4, **changes})
