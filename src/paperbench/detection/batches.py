"""Batches of images and ground truth on the device.

B images, G objects of the image that has most, padded with zeros; H, W the common size of the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperbench.data.detection import DetectionSet
from paperbench.data.image_store import ImageStore
from paperbench.detection.masks import FRAME, in_frames
from paperbench.detection.rpn import Proposals
from paperbench.engine.seeding import hashed
from paperbench.engine.transfer import to_device

FLIP = 100
"""First key of the stream that decides about flips."""

COARSE = 32
"""Batches are padded up to multiples of this many pixels: photographs then give few distinct shapes, and what libraries compile
or choose for a shape serves again."""


def side_multiple(stride: int) -> int:
    """Return the number of which the sides of a batch are a multiple: whole cells of the feature map, and `COARSE`."""
    return lcm(stride, COARSE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """images: (B, 3, H, W) uint8, zero beyond each image; sizes: (B, 2) int64 height and width within it; scales: (B,)
    float32 resized over stored; boxes: (B, G, 4) float32 xyxy in resized pixels; labels: (B, G) int64, 0 where there is no
    object; indices: (B,) int64 into the data set. G is at least 1. proposals: precomputed boxes, in resized
    pixels, for nets that take them. masks: (B, G, M, M) uint8, `masks.FULL` where an object is, in the frame of its box, for
    nets that draw them.
    """

    images: Tensor
    sizes: Tensor
    scales: Tensor
    boxes: Tensor
    labels: Tensor
    indices: Tensor
    proposals: Proposals | None = None
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""

        def move(part: Any) -> Any:
            if isinstance(part, Tensor):
                return part.to(device, non_blocking=True)
            return None if part is None else type(part)(*map(move, part))

        return Batch(**{name: move(part) for name, part in vars(self).items()})


def coin(seed: int, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """A uniform number in [0, 1) for each (seed, epoch, index): the same whatever batch, process or run it is asked in.

    epochs, indices: (B,). The mixing function is that of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), applied per key.
    """

    def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    step = np.uint64(0x9E3779B97F4A7C15)
    state = mix(np.full(len(indices), hashed(seed, FLIP), np.uint64))
    for key in (epochs, indices):
        state = mix((state ^ key.astype(np.uint64)) + step)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


class BatchMaker:
    """Makes a batch from indices and the epochs in which they are seen; a pure function of these and of `seed`.

    flip: probability of a horizontal flip; multiple: what H and W are padded up to a multiple of, or, where `square`, both are
    padded to exactly; training: leaves
    `difficult` and crowd objects out of the ground truth, as the paper's code does, and flips. Otherwise every object is
    there and nothing is flipped.
    """

    def __init__(
        self,
        dataset: DetectionSet,
        store: ImageStore,
        *,
        flip: float,
        seed: int,
        multiple: int,
        training: bool,
        square: bool = False,
    ) -> None:
        if len(store) != len(dataset):
            raise ValueError(f"the store holds {len(store)} images, the data set {len(dataset)}")
        if square and len(store) and store.sizes.max() > multiple:
            raise ValueError(f"images of up to {store.sizes.max()} pixels a side do not fit squares of {multiple}")
        self.dataset = dataset
        self.store = store
        self.flip = flip if training else 0.0
        self.seed = seed
        self.multiple = multiple
        self.square = square
        boxes, labels, counts = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)], []
        for record, scale in zip(dataset.records, store.scales, strict=True):
            keep = ~(record.difficult | record.crowd) if training else np.ones(len(record.labels), bool)
            boxes.append(record.boxes[keep].astype(np.float32) * scale)
            labels.append(record.labels[keep])
            counts.append(len(labels[-1]))
        # All objects in one row, those of image i from _first[i]; a last one stands for padding.
        self._boxes = np.concatenate([*boxes, np.zeros((1, 4), np.float32)]).astype(np.float32)
        self._labels = np.concatenate([*labels, np.zeros(1, np.int64)])
        self._counts = np.array(counts, np.int64)
        self._first = np.cumsum(self._counts) - self._counts

    def __call__(self, indices: NDArray[np.int64], epochs: NDArray[np.int64]) -> Batch:
        """indices, epochs: (B,). Raise DataError naming a file that cannot be decoded."""
        indices, epochs = np.asarray(indices, np.int64), np.asarray(epochs, np.int64)
        sizes = self.store.sizes[indices]
        flipped = coin(self.seed, epochs, indices) < self.flip
        boxes, labels = self._ground_truth(indices, flipped, sizes)
        device = self.store.device

        def move(array: NDArray) -> Tensor:
            return to_device(array, device)

        return Batch(
            images=self._uniform_images(indices, flipped)
            if self.store.uniform
            else self._images(indices, flipped, sizes),
            sizes=move(sizes),
            scales=move(self.store.scales[indices]),
            boxes=move(boxes),
            labels=move(labels),
            indices=move(indices.copy()),
        )

    def _ground_truth(
        self, indices: NDArray[np.int64], flipped: NDArray[np.bool_], sizes: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        counts = self._counts[indices]
        column = np.arange(max(1, int(counts.max(initial=0))))
        present = column < counts[:, None]
        place = np.where(present, self._first[indices, None] + column, len(self._labels) - 1)
        boxes = self._boxes[place]
        # Mirrored within the image's own width; padding stays zero.
        widths = sizes[:, 1, None].astype(np.float32)
        mirrored = boxes.copy()
        mirrored[..., 0], mirrored[..., 2] = widths - boxes[..., 2], widths - boxes[..., 0]
        return np.where((flipped[:, None] & present)[..., None], mirrored, boxes), self._labels[place]

    def _padded(self, side: int) -> int:
        return self.multiple if self.square else -(-side // self.multiple) * self.multiple

    def _uniform_images(self, indices: NDArray[np.int64], flipped: NDArray[np.bool_]) -> Tensor:
        images = self.store.stack(indices)
        if flipped.any():
            chosen = to_device(flipped, images.device)
            images = torch.where(chosen[:, None, None, None], images.flip(-1), images)
        height, width = images.shape[2:]
        right, below = self._padded(width) - width, self._padded(height) - height
        return torch.nn.functional.pad(images, (0, right, 0, below)) if right or below else images

    def _images(self, indices: NDArray[np.int64], flipped: NDArray[np.bool_], sizes: NDArray[np.int64]) -> Tensor:
        height, width = (self._padded(int(side)) for side in sizes.max(axis=0))
        images = torch.zeros((len(indices), 3, height, width), dtype=torch.uint8, device=self.store.device)
        # Sizes differ, so each image is copied into its corner on its own, mirrored on the way where the coin says so.
        for target, image, mirror in zip(images, self.store.get_many(indices.tolist()), flipped.tolist(), strict=True):
            target[:, : image.shape[1], : image.shape[2]].copy_(image.flip(-1) if mirror else image)
        return images


class ProposalBatchMaker(BatchMaker):
    """A `BatchMaker` whose batches carry precomputed proposals, resized and mirrored with their images.

    proposals: for each image of the data set (P, 4) float32 xyxy in pixels of the image as it is stored, best first.
    """

    def __init__(
        self, dataset: DetectionSet, store: ImageStore, proposals: Sequence[NDArray[np.float32]], **settings: Any
    ) -> None:
        super().__init__(dataset, store, **settings)
        if len(proposals) != len(dataset):
            raise ValueError(f"proposals of {len(proposals)} images for {len(dataset)} images")
        self._proposals = [boxes * scale for boxes, scale in zip(proposals, store.scales, strict=True)]

    def __call__(self, indices: NDArray[np.int64], epochs: NDArray[np.int64]) -> Batch:
        """As of `BatchMaker`; P of the batch is at least 1, and scores fall from 1 in the order of the proposals."""
        batch = super().__call__(indices, epochs)
        rows = [self._proposals[index] for index in indices.tolist()]
        present = np.arange(max(1, *map(len, rows))) < np.array([len(row) for row in rows])[:, None]
        boxes = np.zeros((*present.shape, 4), np.float32)
        boxes[present] = np.concatenate(rows)
        mirrored = (coin(self.seed, epochs, indices) < self.flip)[:, None] & present
        widths = self.store.sizes[indices, 1, None].astype(np.float32)
        turned = boxes.copy()
        turned[..., 0], turned[..., 2] = widths - boxes[..., 2], widths - boxes[..., 0]
        boxes = np.where(mirrored[..., None], turned, boxes)
        scores = np.broadcast_to(np.linspace(1, 0, present.shape[1], endpoint=False, dtype=np.float32), present.shape)
        parts = (to_device(np.array(array), self.store.device) for array in (boxes, scores, present))
        return replace(batch, proposals=Proposals(*parts))


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
        """(N, FRAME, FRAME) of the objects of image `index`. Raise DataError where they cannot be read."""
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
        return replace(batch, masks=to_device(masks, self.store.device))
