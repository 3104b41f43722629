"""Full precision inside an op: autocast reaches into a registered op's body and would round its products."""

import torch


def full_precision(device: torch.device) -> torch.autocast:
    """A context in which products are computed in the type of their factors."""
    return torch.autocast(device.type, enabled=False)
