"""Statistics of a handful of runs: the mean, its interval, and the kind of the interval.

One run is one run and has no interval. Two to four are too few to estimate a spread from, so their range is given and all
points are kept. From five on it is the 95 % bootstrap interval of the mean. Two methods are compared seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

FEWEST_FOR_BOOTSTRAP = 5
RESAMPLES = 9999
CONFIDENCE = 0.95

Kind = Literal["none", "one seed", "range", "bootstrap of the mean, 95 %", "resampled test images, 95 %"]
"""The kind of an interval. `one seed` and `none` come without one."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """`values` in the order of their seeds; `mean` is None without values, `interval` (low, high) as `kind` says."""

    values: tuple[float, ...]
    mean: float | None
    interval: tuple[float, float] | None
    kind: Kind

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """`summary` is of the differences a - b over the seeds that both have; `unpaired` are the seeds left out."""

    summary: Summary
    seeds: tuple[int, ...]
    unpaired: tuple[int, ...]


def summarise(values: Sequence[float], *, test_images: tuple[float, float] | None = None) -> Summary:
    """Compute mean and interval of one number measured with several seeds.

    `test_images` is the interval that a single run gave by resampling its test images; it stands in for the interval that one
    seed cannot have, and says so. With several seeds it is left aside: the spread over seeds is wider in kind, for it holds
    training as well.
    """
    points = tuple(float(value) for value in values)
    if not points:
        return Summary(values=(), mean=None, interval=None, kind="none")
    mean = sum(points) / len(points)
    if len(points) == 1:
        if test_images is not None:
            return Summary(values=points, mean=mean, interval=test_images, kind="resampled test images, 95 %")
        return Summary(values=points, mean=mean, interval=None, kind="one seed")
    if len(points) < FEWEST_FOR_BOOTSTRAP:
        return Summary(values=points, mean=mean, interval=(min(points), max(points)), kind="range")
    return Summary(values=points, mean=mean, interval=bootstrap_mean(points), kind="bootstrap of the mean, 95 %")


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired:
    """Compute the differences a - b of two methods, seed by seed.

    The same seed means the same data order and the same test set, which the difference is then free of; seeds that only one of
    the two has would bring that variation back, and are left out.
    """
    both = sorted(a.keys() & b.keys())
    return Paired(
        summary=summarise([a[seed] - b[seed] for seed in both]),
        seeds=tuple(both),
        unpaired=tuple(sorted(a.keys() ^ b.keys())),
    )


def bootstrap_mean(values: Sequence[float]) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval of the mean, bias-corrected and accelerated (Efron 1987); the same for the same values.

    Values that are all equal give an interval of no width: the bootstrap sees no spread to resample.
    """
    import numpy as np
    from scipy.stats import bootstrap

    points = np.asarray(values, dtype=np.float64)
    if np.ptp(points) == 0:
        return float(points[0]), float(points[0])
    found = bootstrap(
        (points,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
