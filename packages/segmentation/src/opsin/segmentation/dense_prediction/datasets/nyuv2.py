"""NYUv2's layout: pictures with 16-bit depth, surface normals and classes, any of the three.

    ROOT/{train,val}/rgb/NAME.jpg       the picture
    ROOT/{train,val}/depth/NAME.png     16-bit grey, millimetres; 0 where nothing was measured
    ROOT/{train,val}/normals/NAME.png   8-bit colours (n + 1) / 2 · 255, black where unknown; or NAME.npy
    ROOT/{train,val}/labels/NAME.png    0 is void, classes begin with 1
    ROOT/classes.txt                    names of the classes, one a line

The other usual form is a list with lines `rgb depth focal`, paths relative to `ROOT`
(`bathroom/rgb_00045.jpg bathroom/sync_depth_00045.png 518.8579`): give it as `ann_file`.

In the pipeline depth is `gt_depth` (H, W) float32 in metres, 0 for unknown; normals are `gt_normals`
(H, W, 3) float32, x to the right, y up, z towards the camera, 0 for unknown; classes are `gt_seg_map` (H, W)
uint8, 255 for void.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from opsin.core.data import Dataset, list_images, read_image
from opsin.core.errors import UserError
from opsin.registry import DATASETS, TRANSFORMS
from opsin.segmentation.datasets.mask_pairs import label_table, read_classes
from opsin.segmentation.visualization import distinct_colours

Results = dict[str, Any]

KINDS = {"depth": (".png",), "normals": (".png", ".npy"), "labels": (".png",)}
MILLIMETRES = 1000.0


@DATASETS.register_module()
class NYUv2(Dataset):
    """Pictures with depth, normals and classes.

    Args:
        data_root: the folder of the data set.
        data_prefix: `rgb`, the folder of the pictures, and any of `depth`, `normals`, `labels`; pictures and
            their truth have the same name.
        ann_file: a list with lines `rgb depth focal`, in the place of folders.
        classes: names of the classes; with `labels`, the lines of `classes_file` by default.
        classes_file: relative to `data_root`.
        depth_scale: what one metre is in a depth PNG; 1000 in the layout above.
        **kwargs: `pipeline`, `test_mode`, `on_error`, … of `opsin.core.data.Dataset`.

    Raises:
        UserError: if folders, names or files are missing; the message says which.
    """

    def __init__(
        self,
        *,
        data_root: str = "",
        data_prefix: dict[str, str] | None = None,
        classes: Sequence[str] | None = None,
        classes_file: str = "classes.txt",
        depth_scale: float = MILLIMETRES,
        **kwargs: Any,
    ) -> None:
        prefix = dict(data_prefix or {})
        if "labels" in prefix:
            names = tuple(classes or read_classes(Path(data_root) / classes_file))
            colours = [tuple(colour) for colour in distinct_colours(len(names)).tolist()]
            kwargs["metainfo"] = {"classes": names, "palette": colours, **kwargs.get("metainfo", {})}
            self.label_table = label_table(names, range(1, len(names) + 1), [0])
        self.depth_scale = depth_scale
        super().__init__(data_root=data_root, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[Results]:
        """Every picture with the paths of its truth, in the order of the names or of the list."""
        if self.ann_file:
            return list(self._listed())
        folder = Path(self.data_prefix["rgb"])
        return [self._sample(path, path.relative_to(folder).with_suffix("")) for path in list_images(folder)]

    def _sample(self, image: Path, name: Path) -> Results:
        sample = {"img_path": str(image)}
        for kind, suffixes in KINDS.items():
            if kind not in self.data_prefix:
                continue
            stem = Path(self.data_prefix[kind]) / name
            found = [path for suffix in suffixes if (path := stem.with_name(stem.name + suffix)).is_file()]
            if not found and self.on_error == "raise":
                raise UserError(
                    f"image {image} has no {kind} {stem}{' or '.join(suffixes)}",
                    "add it, remove the image, or set on_error='skip'",
                )
            key = "seg_map_path" if kind == "labels" else f"{kind}_path"
            sample[key] = str(found[0] if found else stem.with_name(stem.name + suffixes[0]))
        return sample

    def _listed(self) -> Iterable[Results]:
        root = Path(self.data_prefix.get("rgb") or self.data_root)
        lines = Path(self.ann_file).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            parts = line.split()
            if not parts:
                continue
            if len(parts) < 2:
                raise UserError(f"{self.ann_file} line {number} is {line!r}", "write: rgb depth focal")
            image, depth = (str(root / part.lstrip("/")) for part in parts[:2])
            yield {"img_path": image, "depth_path": depth}

    def get_data_info(self, idx: int) -> Results:
        """One entry with what it takes to understand its files."""
        about: Results = {**super().get_data_info(idx), "depth_scale": self.depth_scale}
        if "labels" in self.data_prefix:
            about |= {"label_table": self.label_table, "classes": self.metainfo["classes"]}
        return about


@TRANSFORMS.register_module()
class LoadDepth(BaseTransform):
    """Reads `depth_path` into `gt_depth` (H, W), float32 metres, 0 where unknown.

    Raises:
        UserError: if the file is missing, damaged, has 8 bits, or another size than the picture.
    """

    def transform(self, results: Results) -> Results:
        """Adds the depth to `results`."""
        path = results["depth_path"]
        depth = read_depth(path) / np.float32(results.get("depth_scale", MILLIMETRES))
        _check_size("depth map", path, depth, results)
        results["gt_depth"] = depth
        return results


def read_depth(path: str | Path) -> NDArray[np.float32]:
    """The 16-bit values (H, W) of a depth PNG.

    Raises:
        UserError: if the file is missing, damaged or has 8 bits.
    """
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.array(image)
    except FileNotFoundError:
        raise UserError(f"depth map {path} does not exist") from None
    except UnidentifiedImageError:
        raise UserError(f"depth map {path} is not an image that can be read") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"depth map {path} is truncated or damaged ({error})") from None
    if not mode.startswith("I"):
        raise UserError(
            f"depth map {path} has 8 bits ({mode}) where 16 are expected",
            "write millimetres as 16-bit grey; 8 bits end at 25 centimetres",
        )
    return values.astype(np.float32)


@TRANSFORMS.register_module()
class LoadNormals(BaseTransform):
    """Reads `normals_path` into `gt_normals` (H, W, 3), float32 unit vectors, 0 where unknown.

    Raises:
        UserError: if the file is missing, damaged, of another shape, or of another size than the picture.
    """

    def transform(self, results: Results) -> Results:
        """Adds the normals to `results`."""
        path = results["normals_path"]
        normals = read_normals(path)
        _check_size("normals", path, normals, results)
        results["gt_normals"] = normals
        return results


def read_normals(path: str | Path) -> NDArray[np.float32]:
    """Unit vectors (H, W, 3) of a PNG or of an array (H, W, 3) in an npy file; 0 where unknown.

    Raises:
        UserError: if the file is missing, damaged or of another shape.
    """
    if Path(path).suffix == ".npy":
        try:
            vectors = np.load(path, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError) as error:
            raise UserError(f"normals {path} can't be read ({error})") from None
        if vectors.ndim != 3 or vectors.shape[2] != 3:
            raise UserError(f"normals {path} have shape {vectors.shape}, expected (height, width, 3)")
    else:
        colours = read_image(path)
        vectors = colours.astype(np.float32) / 127.5 - 1
        vectors[~colours.any(-1)] = 0
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = np.where(lengths > 0, vectors / np.maximum(lengths, 1e-6), 0)
    return unit.astype(np.float32)


def encode_normals(normals: NDArray[Any]) -> NDArray[np.uint8]:
    """Unit vectors (H, W, 3) as colours; vectors of length 0 become black."""
    known = (normals != 0).any(-1, keepdims=True)
    return (np.where(known, (normals + 1) * 127.5, 0).round()).clip(0, 255).astype(np.uint8)


def _check_size(what: str, path: str, values: NDArray[Any], results: Results) -> None:
    if values.shape[:2] != tuple(results["ori_shape"]):
        sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (values.shape, results["ori_shape"]))
        raise UserError(f"{what} {path} and image {results['img_path']} differ in size: {sizes}")


@TRANSFORMS.register_module()
class PackDense(BaseTransform):
    """Packs a sample: `inputs` (3, H, W) uint8, `data_samples` a `SegDataSample`.

    The truth that is there becomes `gt_depth_map` (1, H, W), `gt_normals` (3, H, W) and `gt_sem_seg`
    (1, H, W).

    Args:
        meta_keys: what of the results goes into the sample's meta information, where it is present.
    """

    def __init__(
        self, meta_keys: Sequence[str] = ("img_path", "ori_shape", "img_shape", "scale_factor")
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: Results) -> Results:
        """The packed sample."""
        results = {**results, "img_shape": results["img"].shape[:2]}
        sample = SegDataSample(metainfo={key: results[key] for key in self.meta_keys if key in results})
        if "gt_depth" in results:
            sample.gt_depth_map = PixelData(data=torch.from_numpy(results["gt_depth"].copy())[None])
        if "gt_normals" in results:
            sample.gt_normals = PixelData(data=_channels_first(results["gt_normals"]))
        if "gt_seg_map" in results:
            labels = torch.from_numpy(results["gt_seg_map"].astype(np.int64))
            sample.gt_sem_seg = PixelData(data=labels[None])
        return {"inputs": _channels_first(results["img"]), "data_samples": sample}


def _channels_first(pixels: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
