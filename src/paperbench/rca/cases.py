"""What there is to judge, wherever it comes from: references with true masks, and cases with masks of unknown quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.errors import ConfigError, PaperbenchError
from paperbench.rca.labels import Labels

LOW, HIGH = 1.0, 99.0
"""Percentiles of the intensities that become 0 and 1."""

FLAT: Final = 0.05
"""Deviation of intensities from 0 to 1 that counts as even."""

FLOOR: Final = 0.2
"""Share of the weight that is spread evenly over the whole image."""

RECORDED: Final = (PaperbenchError, ValueError, ArithmeticError, RuntimeError, OSError)
"""What one case's files or one registration may raise without ending the run; a mistake of the program itself does end it."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image with what is known of it. `masks` holds a label map a segmenter; `truth` the true one, if known."""

    name: str
    image: NDArray[np.float32]
    """Intensities as they were read; `normalised` makes them comparable."""
    spacing: tuple[float, ...]
    physical: bool
    """Whether `spacing` is a size in the world."""
    masks: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    truth: NDArray[np.int64] | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why a segmenter's mask could not be used."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to judge that is read when its turn comes."""

    name: str
    load: Callable[[], Picture]


@dataclass(frozen=True, kw_only=True)
class Material:
    """All that a run works on. `references` carry their true masks in `truth`."""

    labels: Labels
    references: tuple[Picture, ...]
    cases: tuple[Case, ...]
    calibration: tuple[Case, ...]
    segmenters: tuple[str, ...]
    description: str
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.references) < 1 or not self.cases:
            raise ConfigError("nothing to judge: at least one reference and one image are needed")


def normalised(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intensities from 0 to 1 between the 1st and the 99th percentile, clipped: scales differ by up to 1e6 between cases."""
    low, high = (float(value) for value in np.percentile(image, [LOW, HIGH]))
    if high <= low:
        low, high = float(image.min()), float(image.max())
    if high <= low:
        raise ValueError(f"the image has the one value {low:g} everywhere: nothing can be registered to it")
    return np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)


def local_contrast(image: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Intensities less their mean, over their deviation, in a window about each voxel of `share` of the image's sides.

    What is faint, such as a clavicle, then weighs as much as what is bright. `FLAT` keeps noise of even regions small.
    """
    from scipy.ndimage import uniform_filter

    # SciPy takes a size for each axis, which its annotations do not say.
    window: Any = [max(3, 2 * round(share * length / 2) + 1) for length in image.shape]
    mean = uniform_filter(image, window, mode="nearest")
    variance = uniform_filter(image**2, window, mode="nearest") - mean**2
    return np.asarray((image - mean) / (np.sqrt(np.clip(variance, 0, None)) + FLAT))


def near_organs(planes: NDArray[np.bool_], reach: float) -> NDArray[np.float64]:
    """How much each voxel counts: a bell about each of the masks (L, ...), all masks together alike whatever their size, above a
    floor of `FLOOR` of the whole. `reach`, the bell's deviation, is a share of the image's sides; the mean is 1."""
    from scipy.ndimage import distance_transform_edt

    shape = planes.shape[1:]
    bells = []
    for plane in planes:
        if plane.any():
            far = np.asarray(distance_transform_edt(~plane, sampling=[1 / length for length in shape]))
            bell = np.exp(-0.5 * (far / reach) ** 2)
            bells.append(bell / bell.mean())
    return FLOOR + (1 - FLOOR) * np.mean(bells, axis=0) if bells else np.ones(shape)


def reason(error: BaseException) -> str:
    """An error in one line for a CSV file."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PaperbenchError) and text else f"{type(error).__name__}: {text}"


def by_name(pictures: tuple[Picture, ...]) -> dict[str, Any]:
    """References by name, in an order that does not depend on how they were found."""
    return {picture.name: picture for picture in sorted(pictures, key=lambda picture: picture.name)}
