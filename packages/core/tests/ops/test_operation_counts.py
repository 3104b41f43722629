"""The operations that `opsin info` counts for opsin's ops."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from opsin.core.ops.modulated_deform_conv import modulated_deform_conv2d
from opsin.core.ops.ms_deform_attn import ms_deform_attn
from opsin.core.ops.neighborhood_attention import neighborhood_attention
from opsin.core.ops.operation_counts import formulas
from opsin.core.ops.selective_scan import selective_scan
from opsin.core.ops.wkv import bi_wkv, wkv


def counted(function, *arguments, **settings) -> int:
    with FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
        function(*arguments, **settings)
    return counter.get_total_flops()


def test_attention_to_a_neighborhood_counts_its_neighbours() -> None:
    q = torch.rand(2, 3, 8, 9, 4)
    assert counted(neighborhood_attention, q, q, q, kernel_size=3) == 4 * 2 * 3 * 8 * 9 * 4 * 9


def test_recurrences_count_tokens_and_channels() -> None:
    w, u, k = torch.rand(5), torch.rand(5), torch.rand(2, 7, 5)
    assert counted(wkv, w, u, k, k) == 10 * 2 * 7 * 5
    assert counted(bi_wkv, w, u, k, k) == 20 * 2 * 7 * 5
    x, states = torch.rand(2, 6, 7), torch.rand(2, 4, 7)
    assert counted(selective_scan, x, x, -torch.rand(6, 4), states, states) == 9 * 2 * 6 * 7 * 4


def test_sampling_ops_count_their_samples() -> None:
    value, shapes = torch.rand(1, 12, 2, 4), torch.tensor([[3, 4]])
    places, weights = torch.rand(1, 5, 2, 1, 3, 2), torch.rand(1, 5, 2, 1, 3)
    assert counted(ms_deform_attn, value, shapes, places, weights) == 10 * 5 * 2 * 3 * 4
    x, weight = torch.rand(1, 4, 6, 7), torch.rand(8, 4, 3, 3)
    offset, mask = torch.zeros(1, 18, 6, 7), torch.ones(1, 9, 6, 7)
    convolution, samples = 2 * 8 * 6 * 7 * 4 * 9, 6 * 7 * 4 * 9
    assert counted(modulated_deform_conv2d, x, offset, mask, weight, None, 1, 1) == convolution + 8 * samples
