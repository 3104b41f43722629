"""What makes an MSVMamba: its sizes and switches, the same for the classifier and the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from opsin.core.errors import UserError, unknown

ARCHS: dict[str, dict[str, Any]] = {
    "nano": {"release": 1, "dims": 48, "depths": (1, 2, 5, 2)},
    "micro": {"release": 1, "dims": 64, "depths": (1, 2, 5, 2)},
    "tiny": {"release": 1, "dims": 96, "depths": (1, 2, 9, 2)},
    "v3_tiny": {"release": 2, "dims": 96, "depths": (2, 2, 9, 2)},
    "v3_small": {"release": 2, "dims": 96, "depths": (2, 3, 20, 2)},
    "v3_base": {"release": 2, "dims": 128, "depths": (2, 4, 18, 2), "gate": True},
}
# What the releases differ in besides their blocks.
RELEASES: dict[int, dict[str, Any]] = {
    1: {"ssm_ratio": 2.0, "ffn_ratio": 2.0, "gate": True, "stem": "v1", "downsample": "v1"},
    2: {"ssm_ratio": 1.0, "ffn_ratio": 4.0, "gate": False, "stem": "v2", "downsample": "v3"},
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "release": (1, 2),
    "stem": ("v1", "v2"),
    "downsample": ("v1", "v2", "v3"),
    "full_resolution_route": (1, 2, 3, 4),
}


@dataclass(frozen=True)
class MSVMambaSettings:
    """Sizes and switches of an MSVMamba.

    Args:
        release: whose blocks: 1 (May 2024: Nano, Micro, Tiny) or 2 (NeurIPS version, 'MSVMambav3').
        dims: width of every stage, or that of the first, which doubles from stage to stage.
        depths: blocks of every stage.
        ssm_ratio: channels that are scanned as a multiple of the block's width: 2 in release 1, else 1.
        ffn_ratio: hidden channels of the convolutional feed-forward as a multiple of the width: 2 or 4.
        gate: whether a branch of the input gates the scans' result: yes in release 1 and in v3-Base.
        d_state: states a channel N.
        dt_rank: rank of the steps; 'auto' is a sixteenth of the block's width, rounded up.
        d_conv: side of the full-resolution depth-wise convolution, odd.
        conv_bias: whether the depth-wise convolutions before the scans have a bias.
        squeeze_excite: whether channels are weighted by what the whole map holds.
        full_resolution_route: the route at full resolution: 1 along the rows, 2 against it, 3 along the
            columns, 4 against it; the other three are scanned at half resolution. All published models have
            1, and release 1 has no other.
        stem: 'v1' is one 4x4 convolution of stride 4, 'v2' two 3x3 convolutions of stride 2.
        downsample: 'v1' merges 2x2 cells, 'v2' and 'v3' are a 2x2 or 3x3 convolution of stride 2.
        patch_norm: whether the stem normalises.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
    """

    release: Literal[1, 2]
    dims: int | Sequence[int]
    depths: Sequence[int]
    ssm_ratio: float
    ffn_ratio: float
    gate: bool
    stem: Literal["v1", "v2"]
    downsample: Literal["v1", "v2", "v3"]
    d_state: int = 1
    dt_rank: int | Literal["auto"] = "auto"
    d_conv: int = 3
    conv_bias: bool = True
    squeeze_excite: bool = True
    full_resolution_route: Literal[1, 2, 3, 4] = 1
    patch_norm: bool = True
    in_channels: int = 3
    drop_path_rate: float = 0.0

    @classmethod
    def of(cls, arch: str | Mapping[str, Any], changes: Mapping[str, Any]) -> MSVMambaSettings:
        """The settings of a named arch, or of a mapping of settings, with `changes`.

        Raises:
            UserError: for an unknown arch or setting, or values that do not go together.
        """
        if isinstance(arch, str):
            if arch not in ARCHS:
                raise unknown("MSVMamba arch", arch, ARCHS)
            arch = ARCHS[arch]
        given = {"release": 1, **arch, **changes}
        names = [f.name for f in fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("argument of MSVMamba", name, names)
        for name, known in CHOICES.items():
            if given.get(name, known[0]) not in known:
                raise unknown(f"{name} of MSVMamba", str(given[name]), [str(choice) for choice in known])
        missing = [name for name in ("dims", "depths") if name not in given]
        if missing:
            raise UserError(f"MSVMamba arch {dict(arch)} lacks {', '.join(missing)}")
        settings = cls(**{**RELEASES[given["release"]], **given})
        settings._check()
        return settings

    def _check(self) -> None:
        if len(self.widths) != len(self.depths):
            raise UserError(f"MSVMamba has {len(self.widths)} dims and {len(self.depths)} depths")
        if self.d_conv % 2 == 0:
            raise UserError(f"d_conv {self.d_conv} of MSVMamba must be odd")
        if self.release == 1 and (not self.gate or self.full_resolution_route != 1):
            raise UserError("release 1 of MSVMamba always has a gate and scans rows at full resolution")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every stage."""
        if isinstance(self.dims, int):
            return tuple(self.dims * 2**stage for stage in range(len(self.depths)))
        return tuple(self.dims)
