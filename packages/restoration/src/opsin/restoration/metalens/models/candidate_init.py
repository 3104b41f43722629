"""A start for short trainings: the untrained network gives back one candidate of the Wiener bank.

The published network adds what it computes to the middle candidate, which is the best single one for some
noise only. A training of a minute should begin with the best and not spend itself on finding it.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from opsin.core.errors import UserError
from opsin.registry import WEIGHT_INITIALIZERS
from opsin.restoration.metalens.models.acformer import ACFormer
from opsin.restoration.metalens.models.acformer.block import STAF

COLOURS = 3


@WEIGHT_INITIALIZERS.register_module()
class CandidateInit:
    """Lets the difference of a candidate and the middle one pass an `ACFormer` in its first channels.

    The way is the attention over filters, the embedding, level 1 and the output; the branches of the blocks
    on it begin at zero. No weight is frozen, and all others keep their random start.

    Args:
        candidate: number of the candidate, from 0, the smoothest.
    """

    def __init__(self, candidate: int) -> None:
        self.candidate = candidate

    @torch.no_grad()
    def __call__(self, module: nn.Module) -> None:
        """Changes `module`.

        Raises:
            TypeError: if it is another network.
            UserError: if it takes fewer candidates.
        """
        if not isinstance(module, ACFormer):
            raise TypeError("CandidateInit is for ACFormer")
        if not 0 <= self.candidate < module.filters:
            raise UserError(f"there is no candidate {self.candidate} of {module.filters}")
        if module.ca is not None:
            _pass_on(module.ca.proj_high, 0)
            nn.init.zeros_(module.ca.proj_out.weight)
            nn.init.zeros_(module.ca.proj_rgb.weight)
            _pass_on(module.ca.proj_rgb, 0)
        embedding = module.patch_embed.proj
        embedding.weight[:COLOURS] = 0
        for colour in range(COLOURS):
            embedding.weight[colour, COLOURS * self.candidate + colour, 1, 1] += 1
            embedding.weight[colour, COLOURS * (module.filters // 2) + colour, 1, 1] -= 1
        for block in chain(module.encoder_level1, module.decoder_level1, module.refinement):
            assert isinstance(block, STAF)  # for mypy: nn.Sequential does not say what it holds
            for branch in (block.spatial_attn, block.channel_attn, block.spatial_ffn, block.channel_ffn):
                nn.init.zeros_(branch.project_out.weight)
        nn.init.zeros_(module.output.weight)
        _pass_on(module.output, embedding.out_channels)  # behind what comes up from level 2


def _pass_on(convolution: nn.Conv2d, first: int) -> None:
    """The first outputs become the inputs from `first` on."""
    centre = convolution.kernel_size[0] // 2
    convolution.weight[:COLOURS] = 0
    for colour in range(COLOURS):
        convolution.weight[colour, first + colour, centre, centre] = 1
    if convolution.bias is not None:
        convolution.bias[:COLOURS] = 0
