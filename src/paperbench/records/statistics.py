"""Statistics of a handful of runs: the mean, its interval, and the kind of the interval.

One run is one run and has no interval. Two to four are too few to estimate a spread from, so their range is given and all
points are kept. From five on it is the 95 % interval of the mean by Student's t. Two methods are compared seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

FEWEST_FOR_INTERVAL = 5
CONFIDENCE = 0.95

Kind = Literal["none", "one seed", "range", "Student's t of the mean, 95 %", "resampled test images, 95 %"]
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
    if len(points) < FEWEST_FOR_INTERVAL:
        return Summary(values=points, mean=mean, interval=(min(points), max(points)), kind="range")
    return Summary(values=points, mean=mean, interval=interval_of_mean(points), kind="Student's t of the mean, 95 %")


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


def interval_of_mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of two or more values, by Student's t.

    Over normal values it covers their expectation in 95 % of all cases whatever their number, where a bootstrap of five does in
    82 %. Values that are all equal give an interval of no width.
    """
    import numpy as np
    from scipy.stats import t

    points = np.asarray(values, dtype=np.float64)
    mean = float(points.mean())
    error = float(points.std(ddof=1)) / len(points) ** 0.5 if np.ptp(points) else 0.0
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(points) - 1)) * error
    return mean - reach, mean + reach
