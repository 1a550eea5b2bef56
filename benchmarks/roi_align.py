"""RoIAlign forward and backward: matrix products against torchvision's operator, over sizes of the feature map.

    uv run python -m benchmarks.roi_align

64 regions of 7x7 an image, two images, in turns; milliseconds a batch, medians. `detection.roi_pooling.SEPARABLE_CELLS` is the size
up to which the products are the better choice on a CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torchvision
from torch import Tensor

from benchmarks.common import machine, write
from paperbench.detection.roi_pooling import as_rois, roi_align_separable

IMAGES, REGIONS, BINS, STRIDE = 2, 64, 7, 16
MAPS = ((20, 20), (20, 34), (30, 40), (38, 50), (38, 63), (50, 84))


def seconds(work: Callable[[Tensor], Tensor], features: Tensor) -> float:
    """One forward and backward pass."""
    features.grad = None
    began = time.perf_counter()
    work(features).sum().backward()
    return time.perf_counter() - began


def main() -> None:
    """Writes `results/roi_align-cpu.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rows = []
    for channels in (128, 512):
        for height, width in MAPS:
            generator = torch.Generator().manual_seed(0)
            features = torch.randn(IMAGES, channels, height, width, generator=generator, requires_grad=True)
            limit = torch.tensor([width, height, width, height]) * STRIDE
            corners = torch.rand(IMAGES, REGIONS, 4, generator=generator) * limit
            low, high = corners[..., :2].minimum(corners[..., 2:]), corners[..., :2].maximum(corners[..., 2:])
            boxes = torch.cat([low, high], dim=-1)
            rois = as_rois(boxes)

            def ours(x: Tensor, boxes: Tensor = boxes) -> Tensor:
                return roi_align_separable(x, boxes, size=BINS, scale=1 / STRIDE)

            def theirs(x: Tensor, rois: Tensor = rois) -> Tensor:
                return torchvision.ops.roi_align(x, rois, BINS, 1 / STRIDE, sampling_ratio=2)

            pairs = [(seconds(ours, features), seconds(theirs, features)) for _ in range(arguments.rounds + 1)][1:]
            rows.append(
                {
                    "channels": channels,
                    "map": f"{height}x{width}",
                    "cells": height * width,
                    "matrix_products_ms": f"{1000 * median(pair[0] for pair in pairs):.2f}",
                    "torchvision_ms": f"{1000 * median(pair[1] for pair in pairs):.2f}",
                    "torchvision_over_ours": f"{median(pair[1] / pair[0] for pair in pairs):.2f}",
                    **machine("cpu"),
                }
            )
            print(*list(rows[-1].values())[:6], flush=True)
    print(f"written to {write('roi_align-cpu', rows)}")


if __name__ == "__main__":
    main()
