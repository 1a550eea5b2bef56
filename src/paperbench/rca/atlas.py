"""Single-atlas reverse classification (section III-B.3): the image is the atlas, registered to every reference in one job.

The transforms do not depend on the masks: they are computed once for an image, whatever the number of its segmenters and
labels, and kept on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from paperbench.rca.carrying import carry
from paperbench.rca.cases import RECORDED, Picture, local_contrast, near_organs, normalised, reason
from paperbench.rca.classifier import Drawn
from paperbench.rca.config import RegistrationConfig
from paperbench.rca.labels import Labels, narrow
from paperbench.rca.registration import (
    PLANAR,
    SPATIAL,
    Schedule,
    Transforms,
    centre_of_mass,
    reduced,
    register,
)
from paperbench.rca.transforms import TransformStore, fingerprint, rounded

BATCH_VOXELS = 16_000_000
"""References in one job hold at most so many voxels together; more are taken in turns, with the same result."""


def schedule(config: RegistrationConfig, dims: int) -> Schedule:
    """The levels of the configuration, or those that suit two and three dimensions."""
    default = PLANAR if dims == 2 else SPATIAL
    return Schedule(
        affine=tuple(config.affine) or default.affine,
        bspline=tuple(config.bspline) or default.bspline,
        stiffness=default.stiffness if config.stiffness is None else config.stiffness,
        contrast=default.contrast if config.contrast is None else config.contrast,
        stride=config.stride or default.stride,
        focus=default.focus if config.focus is None else config.focus,
        window=default.window if config.window is None else config.window,
        side=0 if config.affine or config.bspline else default.side,
    )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What registration sees of an image (1, 1, ...), the weight of its voxels, its centre of mass (1, d), and a fingerprint."""

    image: Tensor
    weights: Tensor
    centre: Tensor
    key: str


class Atlas:
    """Batched registration on `device`. `labels` say where in the references the organs lie, which `levels.focus` is for, and what
    `samples` > 1 can vote for. `batch` limits how many references share a job; it changes no result."""

    def __init__(
        self,
        levels: Schedule,
        *,
        labels: Labels | None = None,
        samples: int = 1,
        device: torch.device | str = "cpu",
        store: TransformStore | None = None,
        batch: int | None = None,
    ) -> None:
        self.levels = levels
        self.labels = labels
        self.samples = samples
        self.device = torch.device(device)
        self.store = store
        self.batch = batch
        # MPS has no doubles; everywhere else they are what makes results independent of batching.
        self.dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._prepared: dict[int, tuple[Picture, Seen]] = {}

    def draw(self, picture: Picture, references: Sequence[Picture]) -> Iterator[Drawn]:
        """See `ReverseClassifier`."""
        names = list(picture.masks)
        masks = torch.from_numpy(narrow(np.stack([picture.masks[name] for name in names]))).to(self.device)
        for reference, found in zip(references, self.transforms(picture, references), strict=True):
            if isinstance(found, str):
                yield Drawn(reference=reference.name, maps={}, failure=found)
                continue
            grid = found.grid(0, reference.image.shape)
            drawn = carry(masks, grid, labels=self.labels, samples=self.samples)
            yield Drawn(reference=reference.name, maps=dict(zip(names, drawn, strict=True)))

    def transforms(self, picture: Picture, references: Sequence[Picture]) -> list[Transforms | str]:
        """The transform to each reference as a batch of one, on the device, or why there is none."""
        seen = self._seen(picture)
        found: list[Transforms | str | None] = []
        for reference in references:
            try:
                held = self.store.load(seen.key, self._reference(reference).key) if self.store else None
                found.append(None if held is None else self._placed(held))
            except RECORDED as error:
                found.append(reason(error))
        missing = [k for k, value in enumerate(found) if value is None]
        size = self.batch or max(1, BATCH_VOXELS // seen.image.numel())
        for first in range(0, len(missing), size):
            chunk = missing[first : first + size]
            for k, made in zip(chunk, self._computed(seen, picture, [references[k] for k in chunk]), strict=True):
                found[k] = made
                if self.store and isinstance(made, Transforms):
                    self.store.save(seen.key, self._reference(references[k]).key, made, 0)
        return [value if value is not None else "no transform was computed" for value in found]

    def _computed(self, seen: Seen, picture: Picture, references: Sequence[Picture]) -> list[Transforms | str]:
        """One job for all; where that raises, each for itself, so that one bad reference costs no other."""
        try:
            known = [self._reference(reference) for reference in references]
            scale = torch.stack([_scale(reference, picture) for reference in references]).to(seen.image)
            shift = seen.centre - scale * torch.cat([reference.centre for reference in known])
            fixed, weights = (
                torch.cat([_on_grid(part, seen.image.shape[2:]) for part in parts])
                for parts in ([reference.image for reference in known], [reference.weights for reference in known])
            )
            result = register(fixed, weights, seen.image, self.levels, scale=scale, shift=shift)
            whole = self._placed(rounded(result))
            return [_one(whole, k) for k in range(len(references))]
        except RECORDED as error:
            if len(references) == 1:
                return [reason(error)]
            return [self._computed(seen, picture, [reference])[0] for reference in references]

    def _seen(self, picture: Picture, *, judges: bool = False) -> Seen:
        array = normalised(picture.image)
        shown = local_contrast(array, self.levels.contrast) if self.levels.contrast else array
        weights = self._weights(picture) if judges else np.ones(array.shape)
        plain, image, weighing = (
            reduced(
                torch.from_numpy(values).to(self.device, self.dtype)[None, None], self.levels.reduction(array.shape)
            )
            for values in (array, shown, weights)
        )
        key = fingerprint(array, picture.spacing, physical=picture.physical, weights=weights)
        return Seen(image=image, weights=weighing, centre=centre_of_mass(plain), key=key)

    def _weights(self, picture: Picture) -> NDArray[np.float64]:
        """Of a reference's voxels: more near its true organs, all alike where none are known."""
        if self.labels is None or picture.truth is None or not self.levels.focus:
            return np.ones(picture.image.shape)
        planes = self.labels.planes(torch.from_numpy(narrow(picture.truth))).numpy()
        return near_organs(planes, self.levels.focus)

    def _reference(self, reference: Picture) -> Seen:
        """Kept, because every image needs it; the picture is held with it, so that its id stays its own."""
        if id(reference) not in self._prepared:
            self._prepared[id(reference)] = (reference, self._seen(reference, judges=True))
        return self._prepared[id(reference)][1]

    def _placed(self, held: Transforms) -> Transforms:
        return Transforms(
            held.theta.to(self.device, self.dtype), tuple(field.to(self.device, self.dtype) for field in held.fields)
        )


def _one(transforms: Transforms, index: int) -> Transforms:
    chosen = slice(index, index + 1)
    return Transforms(transforms.theta[chosen], tuple(field[chosen] for field in transforms.fields))


def _on_grid(reference: Tensor, shape: Sequence[int]) -> Tensor:
    """A reference (1, 1, ...) on as many voxels as the image has: what the pyramid reduces must be one batch."""
    if tuple(reference.shape[2:]) == tuple(shape):
        return reference
    mode = "bilinear" if reference.dim() == 4 else "trilinear"
    return F.interpolate(reference, tuple(shape), mode=mode, align_corners=False)


def _scale(reference: Picture, image: Picture) -> Tensor:
    """How much larger the reference's box is than the image's, the last axis first; 1 where either has no size in the world."""
    if reference.image.ndim != image.image.ndim:
        raise ValueError(f"the image has {image.image.ndim} dimensions, the reference {reference.image.ndim}")
    if not (reference.physical and image.physical):
        return torch.ones(image.image.ndim)
    extents = [
        torch.tensor(picture.image.shape, dtype=torch.float64) * torch.tensor(picture.spacing, dtype=torch.float64)
        for picture in (reference, image)
    ]
    return (extents[0] / extents[1]).flip(0)
