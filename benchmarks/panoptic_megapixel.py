"""CPU time and memory of Panoptic SegFormer's prediction for one picture, merging included.

    python benchmarks/panoptic_megapixel.py MODEL SIDE

One process a measurement, as memory counts the most that the process has had.
"""

from __future__ import annotations

import sys
import time

import torch
from mmengine.structures import BaseDataElement

from opsin.core.engine.measure import peak_memory
from opsin.core.models import create_model


def main() -> None:
    """Prints seconds and megabytes, whole and for a megapixel."""
    from mmdet.structures import DetDataSample

    name, side = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_model(name).eval()
    shape = (side, side)
    sample: BaseDataElement = DetDataSample(
        metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
    )
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    before, start = peak_memory(), time.process_time()
    with torch.inference_mode():
        model.test_step({"inputs": [image], "data_samples": [sample]})
    seconds, megabytes = time.process_time() - start, (peak_memory() - before) / 2**20
    megapixels = side * side / 1e6
    print(
        f"{name} {side}x{side}: {seconds:.1f} s, {megabytes:.0f} MB; a megapixel"
        f" {seconds / megapixels:.1f} s, {megabytes / megapixels:.0f} MB"
    )


if __name__ == "__main__":
    main()
