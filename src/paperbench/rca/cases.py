"""Images, cases and sets of cases; the references that score an image; masks of known quality.

References carry their true masks. A case has masks of unknown quality, one for each segmenter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.data import phantoms
from paperbench.engine.device_errors import raise_device_error
from paperbench.engine.seeding import hashed
from paperbench.errors import ConfigError, DataError, PaperbenchError
from paperbench.rca.config import ReferenceConfig
from paperbench.rca.labels import Labels

LOW, HIGH = 1.0, 99.0
"""Percentiles of the intensities that become 0 and 1."""

RECORDED: Final = (PaperbenchError, ValueError, ArithmeticError, RuntimeError, OSError, MemoryError)
"""Errors of one case's files or of one registration: they are recorded, and the run continues."""


class CaseError(DataError, ValueError):
    """An image that cannot be scored: damaged data to a command, which reports it, and a wrong value to a caller in Python."""


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something a reader of the numbers must know. segmenter: empty for the whole image. label: one that cannot be scored."""

    text: str
    segmenter: str = ""
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image with its label maps: one for each segmenter in `masks`, and the true one, if known, in `truth`."""

    name: str
    intensities: NDArray[np.float32]
    """(...) of two or three axes, as stored in the file; `normalised` makes them comparable."""
    spacing: tuple[float, ...]
    physical: bool
    """True where `spacing` is in millimetres, false where it is unknown."""
    masks: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    truth: NDArray[np.int64] | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    """Reason for each segmenter whose mask cannot be used."""
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image that is read when it is processed."""

    name: str
    load: Callable[[], Image]


@dataclass(frozen=True, kw_only=True)
class CaseSet:
    """The references and cases of a run. `references` carry their true masks in `truth`; `calibration` has masks and truth."""

    labels: Labels
    references: tuple[Image, ...]
    cases: tuple[Case, ...]
    calibration: tuple[Case, ...]
    segmenters: tuple[str, ...]
    description: str
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.references) < 1 or not self.cases:
            raise ConfigError("no case: at least one reference and one image are needed")


@dataclass(frozen=True, kw_only=True)
class CaseSource:
    """A set of cases of which no image has been opened yet; `read` reads its references."""

    read: Callable[[], CaseSet]
    references: int
    dims: int | None
    """Axes of the images; None where only their files tell."""
    labels: tuple[str, ...]
    """Names of the labels; empty for all that the references hold."""
    segmenters: tuple[str, ...]
    description: str
    remarks: tuple[str, ...] = ()


def normalised(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale intensities to 0..1 between the 1st and the 99th percentile, clipped: scales differ by up to 1e6 between cases.

    Raises CaseError for an image of one value.
    """
    low, high = (float(value) for value in np.percentile(image, [LOW, HIGH]))
    if high <= low:
        low, high = float(image.min()), float(image.max())
    if high <= low:
        raise CaseError(f"the image has the one value {low:g} everywhere: nothing can be registered to it")
    return np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)


def reason(error: BaseException) -> str:
    """Return an error in one line for a CSV file. An error of the device is no case's, and raised again."""
    raise_device_error(error)
    text = " ".join(str(error).split())
    return text if isinstance(error, PaperbenchError) and text else f"{type(error).__name__}: {text}"


def degraded_map(
    truth: NDArray[np.int64], labels: Labels, severity: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return a true label map degraded by `severity` from 0 to 1; other labels than `labels` become background."""
    planes = labels.planes(torch.from_numpy(truth)).numpy()
    return labels.map_of(phantoms.degraded(planes, severity, rng))


# --- images that are their own references ---------------------------------------------------------------------------


SAME: Final = 0.9999
"""Correlation above which two images of one shape are the same: a copy of another depth or scale stays above it."""
_SAMPLE: Final = 4096


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """Every n-th pixel of an image, some thousands, by which it is known again when it is no longer in memory."""

    name: str
    shape: tuple[int, ...]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, image: Image) -> ImageSample:
        """Take the sample of an image."""
        pixels = image.intensities.ravel()
        return cls(
            name=image.name, shape=image.intensities.shape, values=pixels[:: max(1, pixels.size // _SAMPLE)].copy()
        )

    def same(self, other: ImageSample) -> bool:
        """Return True for samples of the same pixels, up to the scale of their intensities."""
        return self.shape == other.shape and _correlated(self.values, other.values)


def same_image(one: Image, other: Image) -> bool:
    """Return True for two images of the same pixels, up to the scale of their intensities, whatever their files."""
    return ImageSample.of(one).same(ImageSample.of(other)) and _correlated(
        one.intensities.ravel(), other.intensities.ravel()
    )


def _correlated(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    a, b = (values.astype(np.float64) - float(values.mean(dtype=np.float64)) for values in (one, other))
    lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if min(lengths) == 0:
        return lengths[0] == lengths[1] == 0
    return float(a @ b) > SAME * lengths[0] * lengths[1]


def without_itself(image: Image, references: Sequence[Image]) -> tuple[list[Image], list[str]]:
    """Return the references that are other images than `image`, and the names of those that are the same: a mask must not be
    scored on its own image."""
    same = [reference.name for reference in references if same_image(image, reference)]
    return [reference for reference in references if reference.name not in same], same


# --- selection of references ------------------------------------------------------------------------------------------


RANDOM: Final = 121
THUMBNAIL: Final = 16
"""Cells along each axis of the thumbnails that are compared."""


class ReferenceSelection:
    """Selects the references of each image; their thumbnails are computed once."""

    def __init__(self, config: ReferenceConfig, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._thumbnails: dict[str, NDArray[np.float64]] = {}

    def select(self, image: Image, references: Sequence[Image]) -> list[Image]:
        """Return the references of one image, sorted by name. The selection does not depend on their order."""
        config = self.config
        ordered = sorted(references, key=lambda reference: reference.name)
        if config.select == "all" or config.count >= len(ordered):
            return ordered
        if config.select == "random":
            ranked = sorted(ordered, key=lambda reference: hashed(self.seed, RANDOM, *reference.name.encode()))
        else:
            own = thumbnail(image)
            similarity = {r.name: round(float(own @ self._thumbnail(r)), 12) for r in ordered}
            ranked = sorted(ordered, key=lambda reference: (-similarity[reference.name], reference.name))
        return sorted(ranked[: config.count], key=lambda reference: reference.name)

    def _thumbnail(self, reference: Image) -> NDArray[np.float64]:
        if reference.name not in self._thumbnails:
            self._thumbnails[reference.name] = thumbnail(reference)
        return self._thumbnails[reference.name]


def thumbnail(image: Image) -> NDArray[np.float64]:
    """Return a thumbnail as a vector of mean 0 and length 1: the product of two is their normalised cross-correlation."""
    small = normalised(image.intensities)
    for axis, length in enumerate(small.shape):
        edges = np.linspace(0, length, min(THUMBNAIL, length) + 1).round().astype(int)
        sizes = np.diff(edges).reshape([-1 if other == axis else 1 for other in range(small.ndim)])
        small = np.add.reduceat(small, edges[:-1], axis=axis) / sizes
    vector = np.zeros(THUMBNAIL**small.ndim)
    vector[: small.size] = small.ravel() - small.mean()
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


# --- masks of known quality -------------------------------------------------------------------------------------------


DEGRADE: Final = 122


def leave_one_out(references: Sequence[Image], labels: Labels, *, masks: int, seed: int) -> tuple[Case, ...]:
    """Return each reference as a case with `masks` degraded masks, the first its own; it is scored by the other references.

    The masks are a function of the seed and the reference's name. Raises ConfigError for a single reference.
    """
    check_leave_one_out(len(references))

    def case(reference: Image) -> Case:
        return Case(name=reference.name, load=lambda: with_degraded(reference, labels, masks=masks, seed=seed))

    return tuple(map(case, references))


def check_leave_one_out(references: int) -> None:
    """Raise ConfigError where there are too few references to leave one out."""
    if references < 2:
        raise ConfigError(
            "calibration.kind=references and registration.choose_stiffness leave each reference out in turn and need two of them; "
            "with one, choose calibration.kind=none and leave registration.choose_stiffness empty"
        )


def with_degraded(reference: Image, labels: Labels, *, masks: int, seed: int) -> Image:
    """Return the reference with masks whose severities are stratified over 0..1, each random within its stratum."""
    assert reference.truth is not None
    degraded = {}
    for k in range(masks):
        rng = np.random.default_rng(hashed(seed, DEGRADE, k, *reference.name.encode()))
        severity = 0.0 if k == 0 else (k - 1 + rng.uniform()) / max(1, masks - 1)
        degraded[f"degraded-{k:03d}"] = degraded_map(reference.truth, labels, severity, rng)
    return replace(reference, masks=degraded)


def without(references: Sequence[Image], name: str) -> list[Image]:
    """Return all references but the one of that name."""
    return [reference for reference in references if reference.name != name]
