"""Features of all training regions, one image at a time, kept on disk up to a bound."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperbench.data.detection import DetectionSet
from paperbench.detection.batches import BatchMaker
from paperbench.detection.detectors.fast_rcnn import FastRCNN, Layer
from paperbench.engine.arrays import read_arrays
from paperbench.engine.files import write_atomic
from paperbench.engine.run import Run
from paperbench.errors import DiskFullError

Array = NDArray[np.float32]
CHUNK = 512
"""Regions that go through the net at once."""


class FeatureStore:
    """Features (P, D) of image i, computed when they are first asked for and kept as float16 in `folder/<i>.npy`.

    Of the images that do not fit into `limit` bytes, or on the disk, features are computed each time. What a killed process left
    in `folder` is used again, so it must belong to the same net.
    """

    def __init__(self, folder: Path, *, limit: int, compute: Callable[[int], Array]) -> None:
        self.folder = folder
        self.compute = compute
        folder.mkdir(parents=True, exist_ok=True)
        self._left = limit - sum(file.stat().st_size for file in folder.glob("*.npy"))

    def __call__(self, image: int) -> Array:
        """(P, D) float32."""
        path = self.folder / f"{image}.npy"
        with suppress(OSError, ValueError):
            return np.asarray(read_arrays(path)).astype(np.float32)
        features = self.compute(image).astype(np.float16)
        content = BytesIO()
        np.save(content, features)
        if content.tell() <= self._left:
            try:
                write_atomic(path, content.getvalue())
                self._left -= content.tell()
            except DiskFullError:
                self._left = 0  # the rest is computed anew: slower, and as right
        return features.astype(np.float32)

    def remove(self) -> None:
        """Delete the features, and the folder above when nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()


class RegionFeatures:
    """Features of given boxes of one image, by the net as it is in test mode."""

    def __init__(self, model: FastRCNN, make: BatchMaker, run: Run) -> None:
        self.model = model
        self.make = make
        self.run = run

    @torch.no_grad()
    def __call__(self, image: int, boxes: Array, layer: Layer) -> Array:
        """boxes (R, 4) xyxy in pixels of the stored image -> (R, D) float32, after `layer`."""
        batch = self.make(np.array([image]), np.array([0]))
        rows = torch.from_numpy(boxes).to(self.run.device) * batch.scales
        training = self.model.training
        self.model.eval()
        with self.run.autocast():
            maps = self.model.maps(batch)
            parts: list[Tensor] = [
                self.model.features(self.model.pool(maps, part[None]), layer).float() for part in rows.split(CHUNK)
            ]
        self.model.train(training)
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 0), np.float32)


def overlaps(boxes: Array, truth: Array) -> Array:
    """(P, 4) and (G, 4) -> (P, G) intersection over union."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    side = np.maximum(np.minimum(boxes[:, None, 2:], truth[None, :, 2:]) - low, 0)
    shared = side[..., 0] * side[..., 1]
    area = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, truth)]
    return (shared / np.maximum(area[0][:, None] + area[1][None] - shared, 1e-9)).astype(np.float32)


def usable(dataset: DetectionSet, proposals: Sequence[Array], image: int) -> tuple[Array, NDArray[np.int64], Array]:
    """Objects (G, 4) and labels (G,) of an image that count in training, and its proposals (P, 4)."""
    record = dataset.records[image]
    return record.boxes[record.wanted].astype(np.float32), record.labels[record.wanted], proposals[image]
