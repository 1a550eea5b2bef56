"""Single-atlas reverse classification (section III-B.3): the image is the atlas, registered to all references in one batch.

The transforms do not depend on the masks: they are computed once for an image, for any number of segmenters and labels, and stored
on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from paperbench.engine.store import ArrayStore, content_key
from paperbench.errors import EnvironmentError_
from paperbench.rca.cases import RECORDED, CaseError, Image, normalised, reason
from paperbench.rca.config import RegistrationConfig
from paperbench.rca.labels import Labels, narrow
from paperbench.rca.propagation import propagate_labels
from paperbench.rca.registration import (
    PLANAR,
    SPATIAL,
    Schedule,
    Transforms,
    centre_of_mass,
    reduced,
    register,
)
from paperbench.rca.scoring import ReferenceLabels

BATCH_VOXELS = 16_000_000
"""Most voxels of the references of one batch; more references are registered in several batches, with the same result."""


def schedule(config: RegistrationConfig, dims: int) -> Schedule:
    """Return the settings of the configuration, with the defaults for two or three dimensions where it has none."""
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
    ).refined(config.resolution or 1.0)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Input of the registration: an image (1, 1, ...), weights of its voxels, centre of mass (1, d), and a fingerprint."""

    image: Tensor
    weights: Tensor
    centre: Tensor
    key: str


class Atlas:
    """Batched registration on `device`; implements `ReverseClassifier`.

    labels: of the references' organs, for `levels.focus` and for the vote of `samples` > 1. batch: largest number of references in
    one batch; it changes no result.
    """

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
        # MPS has no doubles; elsewhere they make results independent of batching.
        self.dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._references: dict[int, tuple[Image, Prepared]] = {}

    def segment(self, image: Image, references: Sequence[Image]) -> Iterator[ReferenceLabels]:
        """See `ReverseClassifier`."""
        names = list(image.masks)
        masks = torch.from_numpy(narrow(np.stack([image.masks[name] for name in names]))).to(self.device)
        for reference, found in zip(references, self.transforms(image, references), strict=True):
            if isinstance(found, str):
                yield ReferenceLabels(reference=reference.name, maps={}, failure=found)
                continue
            grid = found.grid(0, reference.intensities.shape)
            propagated = propagate_labels(masks, grid, labels=self.labels, samples=self.samples)
            yield ReferenceLabels(reference=reference.name, maps=dict(zip(names, propagated, strict=True)))

    def transforms(self, image: Image, references: Sequence[Image]) -> list[Transforms | str]:
        """Return the transform to each reference as a batch of one, on the device, or the reason for its failure."""
        prepared = self._prepare(image)
        found: list[Transforms | str | None] = []
        for reference in references:
            try:
                stored = self.store.load(prepared.key, self._reference(reference).key) if self.store else None
                found.append(None if stored is None else self._to_device(stored))
            except RECORDED as error:
                found.append(reason(error))
        missing = [k for k, value in enumerate(found) if value is None]
        size = self.batch or max(1, BATCH_VOXELS // prepared.image.numel())
        for first in range(0, len(missing), size):
            chunk = missing[first : first + size]
            for k, computed in zip(chunk, self._compute(prepared, image, [references[k] for k in chunk]), strict=True):
                found[k] = computed
                if self.store and isinstance(computed, Transforms):
                    self.store.save(prepared.key, self._reference(references[k]).key, computed, 0)
        return [value if value is not None else "no transform was computed" for value in found]

    def _compute(self, prepared: Prepared, image: Image, references: Sequence[Image]) -> list[Transforms | str]:
        """Register all in one batch; where that raises, each alone, so that one bad reference does not affect the others."""
        try:
            known = [self._reference(reference) for reference in references]
            scale = torch.stack([_scale(reference, image) for reference in references]).to(prepared.image)
            shift = prepared.centre - scale * torch.cat([reference.centre for reference in known])
            fixed, weights = (
                torch.cat([_on_grid(part, prepared.image.shape[2:]) for part in parts])
                for parts in ([reference.image for reference in known], [reference.weights for reference in known])
            )
            result = register(fixed, weights, prepared.image, self.levels, scale=scale, shift=shift)
            batch = self._to_device(rounded(result))
            return [_select(batch, k) for k in range(len(references))]
        except RECORDED as error:
            if len(references) == 1:
                return [reason(error)]
            return [self._compute(prepared, image, [reference])[0] for reference in references]

    def _prepare(self, image: Image, *, is_reference: bool = False) -> Prepared:
        array = normalised(image.intensities)
        contrast = local_contrast(array, self.levels.contrast) if self.levels.contrast else array
        weights = self._weights(image) if is_reference else np.ones(array.shape)
        key = fingerprint(array, image.spacing, physical=image.physical, weights=weights)
        factor = self.levels.reduction(array.shape)

        def tensor(values: NDArray[np.float64]) -> Tensor:
            return reduced(torch.from_numpy(values).to(self.device, self.dtype)[None, None], factor)

        return Prepared(image=tensor(contrast), weights=tensor(weights), centre=centre_of_mass(tensor(array)), key=key)

    def _weights(self, image: Image) -> NDArray[np.float64]:
        """Return weights of a reference's voxels: larger near its true organs, equal where these are unknown."""
        if self.labels is None or image.truth is None or not self.levels.focus:
            return np.ones(image.intensities.shape)
        planes = self.labels.planes(torch.from_numpy(narrow(image.truth))).numpy()
        return near_organs(planes, self.levels.focus)

    def _reference(self, reference: Image) -> Prepared:
        """Return the prepared reference, cached for all images. The cache holds the image too, so that its id stays unique."""
        if id(reference) not in self._references:
            self._references[id(reference)] = (reference, self._prepare(reference, is_reference=True))
        return self._references[id(reference)][1]

    def _to_device(self, stored: Transforms) -> Transforms:
        return Transforms(
            stored.theta.to(self.device, self.dtype),
            tuple(field.to(self.device, self.dtype) for field in stored.fields),
        )


def _select(transforms: Transforms, index: int) -> Transforms:
    chosen = slice(index, index + 1)
    return Transforms(transforms.theta[chosen], tuple(field[chosen] for field in transforms.fields))


def _on_grid(reference: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample a reference (1, 1, ...) to the shape of the image: the pyramid needs one batch."""
    if tuple(reference.shape[2:]) == tuple(shape):
        return reference
    mode = "bilinear" if reference.dim() == 4 else "trilinear"
    return F.interpolate(reference, tuple(shape), mode=mode, align_corners=False)


def _scale(reference: Image, image: Image) -> Tensor:
    """Return the ratio of the reference's extent to the image's, the last axis first; 1 where either has no physical size."""
    dims = image.intensities.ndim
    if reference.intensities.ndim != dims:
        raise CaseError(f"the image has {dims} dimensions, the reference {reference.intensities.ndim}")
    if not (reference.physical and image.physical):
        return torch.ones(dims)
    extents = [
        torch.tensor(each.intensities.shape, dtype=torch.float64) * torch.tensor(each.spacing, dtype=torch.float64)
        for each in (reference, image)
    ]
    return (extents[0] / extents[1]).flip(0)


# --- intensities and weights ------------------------------------------------------------------------------------------


FLAT: Final = 0.05
"""Standard deviation, of intensities in 0..1, that is added to the local one, so that noise stays small."""

FLOOR: Final = 0.2
"""Fraction of the weight that is uniform over the whole image."""


def local_contrast(image: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return (intensity - mean) / (deviation + `FLAT`) in a window around each voxel, of `share` of the image's sides.

    Faint structures, such as clavicles, then count as much as bright ones.
    """
    from scipy.ndimage import uniform_filter

    # SciPy takes one size for each axis; its annotations lack that.
    window: Any = [max(3, 2 * round(share * length / 2) + 1) for length in image.shape]
    mean = uniform_filter(image, window, mode="nearest")
    variance = uniform_filter(image**2, window, mode="nearest") - mean**2
    return np.asarray((image - mean) / (np.sqrt(np.clip(variance, 0, None)) + FLAT))


def near_organs(planes: NDArray[np.bool_], reach: float) -> NDArray[np.float64]:
    """Return weights of voxels (...) with mean 1, larger near the masks (L, ...).

    Each mask contributes a Gaussian of its distance, of equal sum for every mask; `FLOOR` of the weight is uniform. reach: standard
    deviation as a fraction of the image's sides.
    """
    from scipy.ndimage import distance_transform_edt

    shape = planes.shape[1:]
    gaussians = []
    for plane in planes:
        if plane.any():
            distance = np.asarray(distance_transform_edt(~plane, sampling=[1 / length for length in shape]))
            gaussian = np.exp(-0.5 * (distance / reach) ** 2)
            gaussians.append(gaussian / gaussian.mean())
    return FLOOR + (1 - FLOOR) * np.mean(gaussians, axis=0) if gaussians else np.ones(shape)


# --- computed transforms on disk --------------------------------------------------------------------------------------


VERSION: Final = 2
"""Part of every key; increased when the registration changes its results."""


def fingerprint(
    image: NDArray[np.float64], spacing: Sequence[float], *, physical: bool, weights: NDArray[np.float64]
) -> str:
    """Return the SHA-256 of everything in an image that registration depends on."""
    return content_key([image.shape, list(spacing), physical], image, weights)


class TransformStore:
    """Computed transforms, one small file for each pair of images (`engine.store`). Damaged ones are computed again."""

    def __init__(self, folder: Path, schedule: Schedule) -> None:
        self.folder = folder
        self._arrays = ArrayStore(folder)
        self._settings = json.dumps([VERSION, asdict(schedule)], sort_keys=True)

    def _key(self, image: str, reference: str) -> str:
        return content_key(f"{self._settings}|{image}|{reference}")

    def load(self, image: str, reference: str) -> Transforms | None:
        """Return the transform from a reference to an image (by fingerprint) as a batch of one on the CPU; None if unknown."""
        arrays = self._arrays.load(self._key(image, reference))
        if arrays is None:
            return None
        theta, *fields = map(torch.from_numpy, arrays)
        return Transforms(theta, tuple(fields))

    def save(self, image: str, reference: str, transforms: Transforms, index: int) -> None:
        """Write transform `index` of a batch, as `rounded` leaves it."""
        parts = (transforms.theta, *transforms.fields)
        arrays = (part[index : index + 1].float().cpu().numpy() for part in parts)
        self._arrays.save(self._key(image, reference), *arrays)

    def check(self) -> None:
        """Raise EnvironmentError_ where the folder cannot be created."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentError_(
                f"output.transforms={self.folder}: cannot be created: {error.strerror}; "
                "choose another folder, or none: output.transforms=''"
            ) from error


def rounded(transforms: Transforms) -> Transforms:
    """Round to the 32 bits of the files, so that computed and stored transforms are equal."""
    return Transforms(transforms.theta.float(), tuple(field.float() for field in transforms.fields))
