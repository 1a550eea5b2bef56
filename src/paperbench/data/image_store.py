"""Images of a detection data set on the device: decoded once, resized once, cached as uint8 within a memory budget."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from paperbench.data.detection import DetectionSet
from paperbench.data.image_files import READERS
from paperbench.engine.transfer import to_device
from paperbench.errors import DataError


def resized_shape(height: int, width: int, *, short_side: int, max_side: int) -> tuple[int, int, float]:
    """Height, width and scale (resized over stored) under the paper's rule: section 3.3 of Faster R-CNN.

    The short side becomes `short_side`, or less where the long one would pass `max_side`. One scale holds for both sides,
    and for the boxes; each side is rounded to whole pixels.
    """
    scale = min(short_side / min(height, width), max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale)), scale


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """(3, h, w) uint8 to (3, height, width) uint8, bilinear, with a low-pass filter where it shrinks."""
    if image.shape[1:] == (height, width):
        return image
    # The processor has a fast kernel for bytes; other devices filter floats only.
    source = image[None] if image.device.type == "cpu" else image[None].float()
    target = F.interpolate(source, (height, width), mode="bilinear", align_corners=False, antialias=True)[0]
    return target if target.dtype == torch.uint8 else target.round_().clamp_(0, 255).to(torch.uint8)


class ImageStore:
    """Resized images of `dataset` on `device`, (3, h, w) uint8; safe to use from several threads.

    short_side, max_side: see `resized_shape`. cache_mb: MiB of images in the cache, in order of first use; the others are decoded
    and resized at each use, with the same result. threads: those that decode. Images that all have one size are in one tensor, so
    that a batch of them is one gather.
    """

    def __init__(
        self,
        dataset: DetectionSet,
        *,
        short_side: int,
        max_side: int,
        device: torch.device,
        cache_mb: int,
        threads: int = READERS,
    ) -> None:
        self.device = device
        self._dataset = dataset
        stored = np.array([(r.height, r.width) for r in dataset.records], np.int64).reshape(-1, 2)
        rule = [resized_shape(h, w, short_side=short_side, max_side=max_side) for h, w in stored.tolist()]
        self.sizes: NDArray[np.int64] = np.array([(h, w) for h, w, _ in rule], np.int64).reshape(-1, 2)
        """(N, 2) height and width after resizing."""
        self.scales: NDArray[np.float32] = np.array([scale for _, _, scale in rule], np.float32)
        """(N,) resized over stored."""
        self.uniform = len(rule) > 0 and bool((self.sizes == self.sizes[0]).all())
        """True if all images have one size after resizing."""

        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._budget = cache_mb * 2**20
        self._cache: dict[int, Tensor] = {}
        self._stack: Tensor | None = None
        self._filled = np.zeros(len(rule), bool)
        if self.uniform and 3 * int(self.sizes[0].prod()) * len(rule) <= self._budget:
            height, width = self.sizes[0].tolist()
            self._stack = torch.empty((len(rule), 3, height, width), dtype=torch.uint8, device=device)

    def __len__(self) -> int:
        return len(self.scales)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of image `index` after resizing."""
        height, width = self.sizes[index].tolist()
        return height, width

    def scale(self, index: int) -> float:
        """Resized over stored."""
        return float(self.scales[index])

    def get(self, index: int) -> Tensor:
        """(3, h, w) uint8. Read-only. Raises DataError naming a file that cannot be decoded."""
        return self.get_many([index])[0]

    def get_many(self, indices: Sequence[int]) -> list[Tensor]:
        """One (3, h, w) uint8 each; what is not in memory is decoded by several threads at once. Read-only."""
        if self._stack is not None:
            self._fill(np.asarray(indices, np.int64))
            return [self._stack[index] for index in indices]
        with self._lock:
            known = {index: self._cache[index] for index in indices if index in self._cache}
        for index, image in self._load([index for index in dict.fromkeys(indices) if index not in known]):
            known[index] = image
            with self._lock:
                if index not in self._cache and image.numel() <= self._budget:
                    self._cache[index] = image
                    self._budget -= image.numel()
        return [known[index] for index in indices]

    def stack(self, indices: NDArray[np.int64]) -> Tensor:
        """(B, 3, h, w) uint8, a tensor of its own, of a uniform set. Raises ValueError if sizes differ."""
        if not self.uniform:
            raise ValueError(f"images of {self._dataset.name} differ in size: use get_many")
        if self._stack is None:
            return torch.stack(self.get_many(indices.tolist()))
        self._fill(indices)
        return self._stack.index_select(0, to_device(indices, self.device))

    def _fill(self, indices: NDArray[np.int64]) -> None:
        assert self._stack is not None
        missing = np.unique(indices[~self._filled[indices]])
        if missing.size:
            # Two threads may fill the same place; both write the same bytes before either marks it filled.
            for index, image in self._load(missing.tolist()):
                self._stack[index].copy_(image)
            self._filled[missing] = True

    def _load(self, indices: list[int]) -> list[tuple[int, Tensor]]:
        # Threads only decode. Resizing stays in the caller's thread, where torch's own threads and device apply.
        decoded = map(self._decode, indices) if len(indices) < 2 else self._pool.map(self._decode, indices)
        return [(index, self._prepare(index, pixels)) for index, pixels in zip(indices, decoded, strict=True)]

    def _decode(self, index: int) -> NDArray[np.uint8]:
        pixels = self._dataset.decode(index)
        record = self._dataset.records[index]
        if pixels.shape != (record.height, record.width, 3):
            raise DataError(
                f"{record.source}: the image is {pixels.shape[1]} x {pixels.shape[0]} now and was {record.width} x "
                f"{record.height} when the data were read: the file has changed; start again"
            )
        return pixels

    def _prepare(self, index: int, pixels: NDArray[np.uint8]) -> Tensor:
        # A copy on the host first: decoders hand out read-only arrays, which torch cannot wrap.
        image = to_device(np.array(pixels), self.device).permute(2, 0, 1)
        return resize(image, *self.size(index)).contiguous()
