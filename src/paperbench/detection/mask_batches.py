"""Batches with masks: ground truth of nets that draw what they find."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet
from paperbench.data.images import ImageStore
from paperbench.detection.batches import Batch, BatchMaker, coin
from paperbench.detection.masks import FRAME, in_frames


class MaskStore:
    """Masks of a data set's objects in the frames of their boxes, made when they are first asked for; safe for several threads.

    cache_mb: MiB that are kept; what does not fit is made anew at each use. Raises ValueError for data without masks.
    """

    def __init__(self, dataset: DetectionSet, *, cache_mb: int) -> None:
        if dataset.masks is None:
            raise ValueError(f"{dataset.name} has no masks")
        self._dataset = dataset
        self._decode = dataset.masks
        self._lock = threading.Lock()
        self._budget = cache_mb * 2**20
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def get(self, index: int) -> NDArray[np.uint8]:
        """(N, FRAME, FRAME) of the objects of image `index`. Raises DataError where they cannot be read."""
        with self._lock:
            known = self._kept.get(index)
        if known is not None:
            return known
        made = in_frames(self._decode(index), self._dataset.records[index].boxes)
        with self._lock:
            if index not in self._kept and made.nbytes <= self._budget:
                self._kept[index] = made
                self._budget -= made.nbytes
        return made


class MaskBatchMaker(BatchMaker):
    """A `BatchMaker` whose batches carry the masks of their objects, mirrored with their images."""

    def __init__(self, dataset: DetectionSet, store: ImageStore, masks: MaskStore, **settings: Any) -> None:
        super().__init__(dataset, store, **settings)
        self._masks = masks
        training: bool = settings["training"]
        self._wanted: Sequence[NDArray[np.bool_]] = [
            ~(record.difficult | record.crowd) if training else np.ones(len(record.labels), bool)
            for record in dataset.records
        ]

    def __call__(self, indices: NDArray[np.int64], epochs: NDArray[np.int64]) -> Batch:
        """As of `BatchMaker`."""
        batch = super().__call__(indices, epochs)
        masks = np.zeros((*batch.labels.shape, FRAME, FRAME), np.uint8)
        mirrored = coin(self.seed, epochs, indices) < self.flip
        for row, index, mirror in zip(masks, indices.tolist(), mirrored.tolist(), strict=True):
            own = self._masks.get(index)[self._wanted[index]]
            row[: len(own)] = own[:, :, ::-1] if mirror else own
        moved = torch.from_numpy(masks).to(self.store.device, non_blocking=True)
        return replace(batch, masks=moved)
