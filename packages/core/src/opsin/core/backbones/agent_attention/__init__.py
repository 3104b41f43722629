"""Agent attention, whole: the module, its four hosts, the patch for diffusion, names of models, parity."""

from opsin.core.backbones.agent_attention import published
from opsin.core.backbones.agent_attention.agent_sd import AgentSD, AgentSDSettings
from opsin.core.backbones.agent_attention.attention import AgentAttention
from opsin.core.backbones.agent_attention.cswin import AgentCSWin, AgentCSWinClassifier
from opsin.core.backbones.agent_attention.deit import AgentDeiT, AgentDeiTClassifier
from opsin.core.backbones.agent_attention.pvt import AgentPVT, AgentPVTClassifier
from opsin.core.backbones.agent_attention.swin import AgentSwin, AgentSwinClassifier
from opsin.core.models import register_models

__all__ = [
    "AgentAttention",
    "AgentCSWin",
    "AgentCSWinClassifier",
    "AgentDeiT",
    "AgentDeiTClassifier",
    "AgentPVT",
    "AgentPVTClassifier",
    "AgentSD",
    "AgentSDSettings",
    "AgentSwin",
    "AgentSwinClassifier",
    "published",
]

register_models(
    "agent-attention",
    AgentDeiTClassifier,
    {
        "agent_deit_tiny": {"arch": "tiny"},
        "agent_deit_small": {"arch": "small"},
        "agent_deit_small_448": {"arch": "small", "img_size": 448},
        "agent_deit_base": {"arch": "base"},
    },
    backbone=AgentDeiT,
)
register_models(
    "agent-attention",
    AgentPVTClassifier,
    {
        "agent_pvt_tiny": {"arch": "tiny"},
        "agent_pvt_small": {"arch": "small"},
        "agent_pvt_medium": {"arch": "medium"},
        "agent_pvt_medium_256": {"arch": "medium", "img_size": 256},
        "agent_pvt_large": {"arch": "large"},
    },
    backbone=AgentPVT,
)
register_models(
    "agent-attention",
    AgentSwinClassifier,
    {
        "agent_swin_tiny": {"arch": "tiny"},
        "agent_swin_small": {"arch": "small"},
        "agent_swin_small_288": {"arch": "small", "img_size": 288},
        "agent_swin_base": {"arch": "base"},
        "agent_swin_base_384": {"arch": "base", "img_size": 384},
    },
    backbone=AgentSwin,
)
register_models(
    "agent-attention",
    AgentCSWinClassifier,
    {
        "agent_cswin_tiny": {"arch": "tiny"},
        "agent_cswin_small": {"arch": "small"},
        "agent_cswin_base": {"arch": "base"},
        "agent_cswin_base_384": {"arch": "base", "img_size": 384},
    },
    backbone=AgentCSWin,
)
