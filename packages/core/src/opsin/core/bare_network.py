"""Loading of files that hold a network alone into a model that holds it as a part."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModel
from torch import Tensor


class BareNetworkLoading(BaseModel):
    """A model with a part `network`, whose tensors an authors' file may hold alone, by their published names.

    Attributes:
        optional_parts: parts that a file may lack; they keep the weights that they have.
    """

    optional_parts: tuple[str, ...] = ()
    network: Any

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *torch_arguments: Any
    ) -> None:
        """Names the tensors of a bare network as the model's own, and fills up optional parts.

        A network with `from_published` (the authors' names to its own) is asked for it.
        """
        network = f"{prefix}network."
        if not any(name.startswith(network) for name in state_dict):
            convert = getattr(self.network, "from_published", dict)
            bare = {
                n.removeprefix(prefix): state_dict.pop(n) for n in list(state_dict) if n.startswith(prefix)
            }
            state_dict.update({f"{network}{name}": tensor for name, tensor in convert(bare).items()})
        for part in self.optional_parts:
            own = getattr(self, part, None)
            if own is not None and not any(name.startswith(f"{prefix}{part}.") for name in state_dict):
                state_dict.update({f"{prefix}{part}.{n}": tensor for n, tensor in own.state_dict().items()})
        super()._load_from_state_dict(state_dict, prefix, *torch_arguments)
