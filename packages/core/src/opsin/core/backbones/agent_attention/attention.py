"""Agent attention: softmax attention through a few tokens that stand between queries and keys.

Agent Attention: On the Integration of Softmax and Linear Attention (arXiv 2312.08874, ECCV 2024). The
authors' repository carries no licence; this is written from the paper's description. Letters: B images, a
map of h x w = N tokens of width C, H heads of d = C / H, n = p * p agents.

    A   = the map of queries pooled to p x p
    V_A = softmax(s A K^T + B1) V         agents gather from all tokens, s = d ** -0.5
    O   = softmax(s Q A^T + B2) V_A       tokens gather from the agents
    out = proj(O + depthwise(V))

This costs O(N n d) and is linear attention whose feature maps are the two softmaxes. B1 and B2 are sums of
a 7x7 table, resized to the map, and of tables for rows and columns.

What a naive reading gets wrong: agents are pooled from projected queries, before heads are split and
without the scale, which acts in both steps; tables of the second step have their agents last, but `na_bias`
has them first; the convolution reads V as it is. Where agents outnumber those that the tables were learned
for (dense tasks), tables are resized along the agents too, seen as a square. There is no attention mask.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.biased_attention import biased_attention
from opsin.registry import MODELS

Grid = tuple[int, int]
TABLE_SIDE = 7  # of an_bias and na_bias, whatever the map


class AgentMixer(nn.Module):
    """The bias tables and the two steps, on given queries, keys and values.

    Args:
        num_heads: heads H.
        agent_num: agents n that the tables are for, a square number.
        size: rows and columns of the map of queries that the tables are for.
        key_size: those of the map of keys, if it is another one.
        agent_shape: rows and columns that agents are pooled to, if not the square root of `agent_num`.
        class_token: whether a class token stands before those of the map; it is no source of agents.
        scale_exponent: the logits' factor is d to this power.

    Raises:
        UserError: if `agent_num` is no square number.
    """

    an_bias: Tensor
    na_bias: Tensor
    ah_bias: Tensor
    aw_bias: Tensor
    ha_bias: Tensor
    wa_bias: Tensor
    ac_bias: Tensor
    ca_bias: Tensor

    def __init__(
        self,
        num_heads: int,
        agent_num: int,
        size: Grid,
        *,
        key_size: Grid | None = None,
        agent_shape: Grid | None = None,
        class_token: bool = False,
        scale_exponent: float = -0.5,
    ) -> None:
        super().__init__()
        side = math.isqrt(agent_num)
        if side * side != agent_num or not agent_num:
            raise UserError(f"agent_num {agent_num} is not a square number", "agents are pooled to a square")
        self.num_heads, self.class_token = num_heads, class_token
        self.size = (size[0], size[1])  # configs may give lists
        self.agent_shape = (side, side) if agent_shape is None else (agent_shape[0], agent_shape[1])
        self.scale_exponent = scale_exponent
        (rows, columns), (key_rows, key_columns) = size, key_size or size
        shapes = {
            "an_bias": (num_heads, agent_num, TABLE_SIDE, TABLE_SIDE),
            "na_bias": (num_heads, agent_num, TABLE_SIDE, TABLE_SIDE),
            "ah_bias": (1, num_heads, agent_num, key_rows, 1),
            "aw_bias": (1, num_heads, agent_num, 1, key_columns),
            "ha_bias": (1, num_heads, rows, 1, agent_num),
            "wa_bias": (1, num_heads, 1, columns, agent_num),
        }
        if class_token:
            shapes |= {"ac_bias": (1, num_heads, agent_num, 1), "ca_bias": (1, num_heads, 1, agent_num)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)

    def agent_bias(self, size: Grid) -> Tensor:
        """B1 for a map of keys of `size`: (1, H, n, N), with the class token's column first."""
        table = self._more_agents(self.an_bias.flatten(2)).unflatten(2, (TABLE_SIDE, TABLE_SIDE))
        rows = _resize_line(self._more_agents(self.ah_bias[0, ..., 0]), size[0])[..., None]
        columns = _resize_line(self._more_agents(self.aw_bias[0, :, :, 0]), size[1])[..., None, :]
        upright, level = (_resizing(TABLE_SIDE, side, table) for side in size)
        # one product brings the table to its height and adds the tables of rows and columns
        left = torch.cat((upright.expand(*rows.shape[:-1], -1), rows, torch.ones_like(rows)), -1)
        right = torch.cat((table @ level.t(), torch.ones_like(columns), columns), -2)
        bias = (left @ right).flatten(2)
        if self.class_token:
            bias = torch.cat((self._more_agents(self.ac_bias[0]), bias), 2)
        return bias[None]

    def query_bias(self, size: Grid) -> Tensor:
        """B2 for a map of queries of `size`: (1, H, N, n), with the class token's row first."""
        table = self._more_agents(self.na_bias.flatten(2)).transpose(1, 2)
        table = table.unflatten(1, (TABLE_SIDE, TABLE_SIDE))  # H, 7, 7, n
        rows, columns = (
            _resize_line(self._more_agents(line.transpose(1, 2)), side).transpose(1, 2)
            for line, side in zip((self.ha_bias[0, :, :, 0], self.wa_bias[0, :, 0]), size, strict=True)
        )
        upright, level = (_resizing(TABLE_SIDE, side, table) for side in size)
        left = F.pad(upright, (0, 1), value=1.0)
        right = torch.cat((level @ table, columns[:, None]), 1)  # H, 8, w, n
        bias = (left @ right.flatten(2)).unflatten(2, right.shape[2:]) + rows[:, :, None]
        bias = bias.flatten(1, 2)
        if self.class_token:
            bias = torch.cat((self._more_agents(self.ca_bias[0].transpose(1, 2)).transpose(1, 2), bias), 1)
        return bias[None]

    def _more_agents(self, table: Tensor) -> Tensor:
        """A table (H, n, places) for as many agents as are pooled, resized as a map of agents."""
        side = math.isqrt(table.shape[1])
        if (side, side) == self.agent_shape:
            return table
        upright, level = (_resizing(side, new_side, table) for new_side in self.agent_shape)
        return torch.kron(upright, level) @ table

    def pool(self, q: Tensor, size: Grid) -> Tensor:
        """Agents (B, n, C) of queries (B, N, C) of a map of `size`; a class token before them is left out."""
        q = q[:, 1:] if self.class_token else q
        upright, level = (
            _pooling(side, new_side, q) for side, new_side in zip(size, self.agent_shape, strict=True)
        )
        lines = level @ q.unflatten(1, size)
        return (upright @ lines.flatten(2)).unflatten(2, lines.shape[2:]).flatten(1, 2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Grid, key_size: Grid | None = None) -> Tensor:
        """Queries (B, N, C) of a map of `size`, keys and values of one of `key_size`, to O (B, N, C)."""
        q, k, v, agents = (
            tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for tokens in (q, k, v, self.pool(q, size))
        )
        scale = float(q.shape[-1]) ** self.scale_exponent
        gathered = biased_attention(agents, k, v, self.agent_bias(key_size or size), scale)
        out = biased_attention(q, agents, gathered, self.query_bias(size), scale)
        return out.transpose(1, 2).flatten(2)

    def add_local(self, mixed: Tensor, conv: nn.Conv2d, v: Tensor, size: Grid) -> Tensor:
        """Adds the convolution of the values' map (B, N, C) to O; the class token, if any, gets nothing."""
        patches = v[:, 1:] if self.class_token else v
        local = conv(patches.unflatten(1, size).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
        if self.class_token:
            return torch.cat((mixed[:, :1], mixed[:, 1:] + local), 1)
        return mixed + local


def _resize_line(line: Tensor, side: int) -> Tensor:
    """Biases (H, n, places) of rows or columns for another number of them."""
    return line if line.shape[2] == side else F.interpolate(line, size=side, mode="linear")


def _resizing(side: int, new_side: int, like: Tensor) -> Tensor:
    """The matrix (new_side, side) of linear interpolation.

    Products with it, here and backwards, are several times as fast as torch's bilinear kernel, which scatters
    gradients.
    """
    identity = torch.eye(side, dtype=like.dtype, device=like.device)
    return _resize_line(identity[None], new_side)[0].t()


def _pooling(side: int, new_side: int, like: Tensor) -> Tensor:
    """The matrix (new_side, side) of adaptive average pooling."""
    identity = torch.eye(side, dtype=like.dtype, device=like.device)
    return F.adaptive_avg_pool1d(identity[None], new_side)[0].t()


def depthwise(dim: int, kernel_size: int = 3) -> nn.Conv2d:
    """The convolution that brings back what agents can't tell apart."""
    return nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)


@MODELS.register_module()
class AgentAttention(AgentMixer):
    """Agent attention of all tokens of a map; parameters `qkv`, `proj`, `dwc` and the bias tables.

    A token mixer for any block that has tokens of a map: `attn(tokens, (h, w))`.

    Args:
        dim: width C.
        num_heads: heads H; divides `dim`.
        agent_num: agents n that the tables are for, a square number.
        size: rows and columns of the map that the tables are for; other maps resize them.
        qkv_bias: whether `qkv` has a bias.
        kernel_size: side of the convolution of V, odd.
        agent_shape, class_token, scale_exponent: see `AgentMixer`.

    Raises:
        UserError: if `num_heads` does not divide `dim`, or `agent_num` is no square number.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        agent_num: int = 49,
        size: Grid = (14, 14),
        *,
        qkv_bias: bool = True,
        kernel_size: int = 3,
        agent_shape: Grid | None = None,
        class_token: bool = False,
        scale_exponent: float = -0.5,
    ) -> None:
        check_heads(dim, num_heads)
        super().__init__(
            num_heads,
            agent_num,
            size,
            agent_shape=agent_shape,
            class_token=class_token,
            scale_exponent=scale_exponent,
        )
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.dwc = depthwise(dim, kernel_size)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: Grid | None = None) -> Tensor:
        """(B, N, C) of a map of `size` (h, w), by default the one that it was built for, to the same shape.

        Raises:
            UserError: if the number of tokens is not that of the map.
        """
        size = self.size if size is None else size
        if x.shape[1] != math.prod(size) + self.class_token:
            raise UserError(
                f"{x.shape[1]} tokens are not a map of {size[0]} x {size[1]}"
                + (" and a class token" if self.class_token else ""),
                "pass its rows and columns",
            )
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(self.add_local(self.mix(q, k, v, size), self.dwc, v, size))


def check_heads(dim: int, num_heads: int) -> None:
    """Checks that a width can be cut into heads.

    Raises:
        UserError: if not.
    """
    if dim % num_heads:
        raise UserError(f"{num_heads} heads do not divide a width of {dim}")
