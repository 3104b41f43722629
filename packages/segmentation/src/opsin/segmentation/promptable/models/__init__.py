"""Promptable models; importing this registers them, their names and their parity adapters."""

from opsin.segmentation.promptable.models import mask_loss, prompt_preprocessor, rwkv_sam

__all__ = ["mask_loss", "prompt_preprocessor", "rwkv_sam"]
