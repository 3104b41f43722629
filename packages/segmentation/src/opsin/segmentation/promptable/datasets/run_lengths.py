"""COCO's codes of masks, polygons and run lengths, by pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.core.errors import UserError


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        mend = "pip install 'opsin-segmentation[promptable]'"
        raise UserError("COCO's mask codes need pycocotools, which is not installed", mend) from None
    return mask


def decode(segments: Sequence[Any], size: tuple[int, ...], *, source: str) -> NDArray[np.uint8]:
    """Polygons or run lengths, packed or not, to masks (N, H, W) of `size`.

    Args:
        segments: COCO's `segmentation` of N objects.
        size: rows and columns of the picture.
        source: the file, for errors.

    Raises:
        UserError: if a code can't be read, or is of another size than the picture.
    """
    coder = _pycocotools()
    masks = np.zeros((len(segments), *size), np.uint8)
    for mask, segment in zip(masks, segments, strict=True):
        if isinstance(segment, dict) and tuple(segment.get("size", ())) != tuple(size):
            sizes = f"{list(segment.get('size', ()))} and {list(size)} (rows, columns)"
            raise UserError(f"{source}: a mask and its picture differ in size: {sizes}")
        try:
            mask[:] = coder.decode(_packed(coder, segment, size))
        except Exception as error:  # pycocotools raises bare exceptions for what it can't read
            raise UserError(f"{source} holds a mask code that can't be read ({error})") from None
    return masks


def _packed(coder: Any, segment: Any, size: tuple[int, ...]) -> Any:
    """One object's code as packed run lengths."""
    if isinstance(segment, list):  # polygons
        return coder.merge(coder.frPyObjects(segment, *size))
    if isinstance(segment["counts"], list):
        if sum(segment["counts"]) != size[0] * size[1]:
            raise ValueError(f"its runs are {sum(segment['counts'])} pixels long")
        return coder.frPyObjects(segment, *size)
    return segment


def encode(mask: NDArray[Any]) -> dict[str, Any]:
    """A mask (H, W) as packed run lengths that json can hold."""
    code = _pycocotools().encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()}
