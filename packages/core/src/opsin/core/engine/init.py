"""`init_cfg=dict(type='opsin.Published', checkpoint=PATH)`: weights from the authors' file."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import nn

from opsin.core.published import load_published
from opsin.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Published:
    """Fills the module that has this `init_cfg` from a published checkpoint, none missing and none left over.

    Args:
        checkpoint: the authors' file.
        key: which of the file's entries to take, when there are several.

    Raises:
        UserError: if the file can't be read or is another model's (names the first tensors that differ).
    """

    def __init__(self, checkpoint: str, key: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.key = key

    def __call__(self, module: nn.Module) -> None:
        """Fills `module`."""
        load_published(module, self.checkpoint, self.key)
        print_log(f"{type(module).__name__}: published weights from {self.checkpoint}", logger="current")
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=f"Published: {self.checkpoint}")
