"""The X-ray sample data: **simulated** baggage in PIDray's layout; no real X-ray picture is in it.

Each picture is the transmission of a bag at two energies: Beer-Lambert attenuation exp(-sum of mu_material x
thickness) through everything that lies over a pixel, with photon noise. How much more the low energy is
attenuated than the high one tells the material, which is shown in false colour as scanners do: organic things
orange, light metals and glass green, steel blue, thick things dark, nothing white. Things overlap and shine
through each other. `easy` has one item, `hard` several; in `hidden` one or two items lie under plates, wires
and piles that take most of their contrast. `README.txt` and each json file say that all of it is simulated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from faster_coco_eval import mask as run_lengths
from numpy.typing import NDArray

from opsin.core.data.image import write_image
from opsin.core.files import write_atomically
from opsin.detection.xray.classes import CLASSES
from opsin.detection.xray.datasets.pidray import JSON_FILES
from opsin.detection.xray.silhouettes import CLUTTER, ITEMS, LENGTHS, MATERIALS, Map, thickness_maps

COUNTS = {"train": 160, "easy": 24, "hard": 24, "hidden": 24}
"""Pictures of each part."""

SIZES = ((160, 160), (144, 192), (128, 160), (150, 171))
"""Height and width; a picture takes one of them at random."""

ATTENUATION = {"organic": (0.19, 0.155), "light": (0.75, 0.42), "metal": (3.4, 1.35)}
"""Linear attenuation of each material at the low and the high energy, 1/cm: about that of water, aluminium
and steel at 60 and 100 keV, steel's less, as a scanner's beam is harder behind it."""

HUES = ((1.0, (255, 160, 70)), (1.22, (255, 150, 50)), (1.75, (60, 170, 80)), (2.45, (30, 70, 190)))
"""Colour by the ratio of low-energy to high-energy attenuation, interpolated between these."""

PHOTONS = 4000.0
"""Photons that reach a pixel through nothing; their shot noise grows behind thick things."""

LEAST_SEEN = 0.04
"""Attenuation at the high energy from which a pixel counts as covered by an item."""

NOTE = "Simulated X-ray pictures of baggage (opsin samples xray_detection); not real data."

Array = NDArray[Any]


def write(directory: Path, seed: int = 0) -> None:
    """Writes the data set into `directory` (232 pictures, in seconds); the same seed gives the same bytes.

    Raises:
        UserError: when the folder cannot be written.
    """
    directory = Path(directory)
    write_atomically(directory / "README.txt", f"{NOTE}\n".encode())
    for index, (part, count) in enumerate(COUNTS.items()):
        _write_part(directory, part, count, np.random.default_rng([seed, index]))


def _write_part(directory: Path, part: str, count: int, rng: np.random.Generator) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(1, count + 1):
        kind = part if part != "train" else ("easy", "hard", "hidden")[index % 3]
        picture, items = bag(kind, rng)
        name = f"xray_{part}{index:05d}.png"
        write_image(directory / part / name, picture)
        height, width = picture.shape[:2]
        images.append({"id": index, "file_name": name, "height": height, "width": width})
        annotations += [
            {"id": len(annotations) + number, "image_id": index, "iscrowd": 0, **item}
            for number, item in enumerate(items, start=1)
        ]
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]
    content = {
        "info": {"description": NOTE},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    write_atomically(directory / JSON_FILES[part], json.dumps(content).encode())


def bag(kind: str, rng: np.random.Generator) -> tuple[Array, list[dict[str, Any]]]:
    """One simulated picture and its annotations.

    Args:
        kind: `easy`, `hard` or `hidden`.
        rng: the randomness.

    Returns:
        RGB uint8 (H, W, 3), and COCO's annotations of the items without ids.
    """
    height, width = SIZES[rng.integers(len(SIZES))]
    thickness: dict[str, Map] = {material: np.zeros((height, width), np.float32) for material in MATERIALS}
    _fill_bag(thickness, rng)
    for _ in range(rng.integers(2, 5)):
        _put(thickness, CLUTTER[str(rng.choice(sorted(CLUTTER)))], (40, 90), rng)
    count = {"easy": 1, "hard": int(rng.integers(2, 5)), "hidden": int(rng.integers(1, 3))}[kind]
    annotations = []
    for _ in range(count):
        name = CLASSES[rng.integers(len(CLASSES))]
        covered = _put(thickness, ITEMS[name], LENGTHS[name], rng)
        annotations.append(_annotation(covered, CLASSES.index(name) + 1))
        if kind == "hidden":
            _conceal(thickness, annotations[-1]["bbox"], rng)
    return false_colour(*transmission(thickness, rng)), annotations


def _fill_bag(thickness: dict[str, Map], rng: np.random.Generator) -> None:
    """The bag's walls, its zip, and clothes: smooth organic clouds."""
    height, width = thickness["organic"].shape
    outline = np.zeros((height, width), np.uint8)
    margin = int(rng.integers(4, 10))
    cv2.rectangle(outline, (margin, margin), (width - margin, height - margin), 1, cv2.FILLED)
    cloth = rng.standard_normal((6, 7)).astype(np.float32)
    cloud = cv2.resize(cloth, (width, height), interpolation=cv2.INTER_CUBIC)
    thickness["organic"] += outline * (1.2 + np.clip(cloud, 0, None) * rng.uniform(0.5, 1.6))
    walls = np.zeros((height, width), np.uint8)
    cv2.rectangle(walls, (margin, margin), (width - margin, height - margin), 1, 3)
    thickness["organic"] += walls * np.float32(2.0)
    zipper = np.zeros((height, width), np.uint8)
    level = int(rng.integers(margin + 4, height // 4))
    cv2.line(zipper, (margin + 4, level), (width - margin - 4, level), 1, 1)
    zipper[:, ::2] = 0
    thickness["metal"] += zipper * np.float32(0.35)


def _put(
    thickness: dict[str, Map], parts: Any, lengths: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Lays a thing somewhere into the bag; the pixels (H, W) that it covers."""
    height, width = thickness["organic"].shape
    size = int(rng.integers(lengths[0], lengths[1] + 1) * 2**0.5)  # its square is turned inside a larger one
    maps = thickness_maps(parts, size, rng.uniform(0, 360), rng.uniform(0.8, 1.0))
    y = (
        int(rng.integers(-size // 8, height - size + size // 8 + 1))
        if height > size
        else (height - size) // 2
    )
    x = int(rng.integers(-size // 8, width - size + size // 8 + 1)) if width > size else (width - size) // 2
    rows, columns = _overlap(y, size, height), _overlap(x, size, width)
    seen = np.zeros((height, width), np.float32)
    for material, centimetres in maps.items():
        piece = centimetres[rows[1], columns[1]]
        thickness[material][rows[0], columns[0]] += piece
        seen[rows[0], columns[0]] += piece * ATTENUATION[material][1]
    return seen > LEAST_SEEN


def _overlap(start: int, size: int, limit: int) -> tuple[slice, slice]:
    """Where a stretch from `start` lies on an axis of length `limit`, and which of it that is."""
    first, last = max(0, start), min(limit, start + size)
    return slice(first, last), slice(first - start, last - start)


def _conceal(thickness: dict[str, Map], box: list[int], rng: np.random.Generator) -> None:
    """Puts a plate, a tangle of wires and a pile of paper over an item."""
    height, width = thickness["organic"].shape
    x, y, w, h = box
    plate = np.zeros((height, width), np.uint8)
    left, top, right, bottom = map(int, rng.uniform(0.05, 0.35, 4) * (w, h, w, h))
    cv2.rectangle(plate, (x - left, y - top), (x + w + right, y + h + bottom), 1, cv2.FILLED)
    material = "metal" if rng.random() < 0.6 else "light"
    thickness[material] += plate * np.float32(rng.uniform(0.3, 0.6) * (1 if material == "metal" else 3))
    thickness["organic"] += plate * np.float32(rng.uniform(1.0, 4.0))
    wires = np.zeros((height, width), np.uint8)
    points = rng.uniform((x, y), (x + w, y + h), (int(rng.integers(5, 9)), 2))
    cv2.polylines(wires, [points.astype(np.int32)], False, 1, int(rng.integers(1, 3)))
    thickness["metal"] += wires * np.float32(0.4)


def transmission(thickness: dict[str, Map], rng: np.random.Generator) -> tuple[Array, Array]:
    """The transmitted shares (H, W) at the low and the high energy, with photon noise."""
    found = []
    for energy in (0, 1):
        depth = sum(ATTENUATION[material][energy] * layer for material, layer in thickness.items())
        photons = rng.poisson(PHOTONS * np.exp(-depth))
        found.append(np.clip(photons, 1, PHOTONS) / PHOTONS)
    return found[0], found[1]


def false_colour(low: Array, high: Array) -> Array:
    """Transmitted shares (H, W) at both energies to RGB uint8: hue by material, darkness by thickness."""
    low, high = (cv2.GaussianBlur(share, (0, 0), 0.6) for share in (low, high))
    depth = -np.log(high)
    ratio = -np.log(low) / np.maximum(depth, 0.02)
    places = [place for place, _ in HUES]
    hue = np.stack([np.interp(ratio, places, [c[i] for _, c in HUES]) for i in range(3)], -1) / 255
    covered = np.clip(depth / 0.08, 0, 1)[..., None]
    # colours are seen best at middling thickness; thin things fade to white, thick ones to black
    amount = 1 - np.exp(-1.1 * depth)[..., None]
    shade = np.exp(-0.35 * depth)[..., None]
    colour = (1 - covered * amount * (1 - hue)) * shade
    return np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8)


def _annotation(covered: NDArray[np.bool_], category_id: int) -> dict[str, Any]:
    """COCO's `bbox`, `area` and `segmentation` (compressed run lengths) of the pixels that an item covers."""
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    mask = run_lengths.encode(np.asfortranarray(covered, np.uint8))
    return {
        "category_id": category_id,
        "bbox": [int(v) for v in box],
        "area": int(covered.sum()),
        "segmentation": {"size": list(covered.shape), "counts": _text(mask["counts"])},
    }


def _text(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts
