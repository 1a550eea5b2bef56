"""The metrics of a mask as declarations: direction, range, unit, and the value beyond which a mask is poor. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class MaskMetric:
    """A metric of a mask against a true one, 0 to `upper`. threshold: the value beyond which a mask is poor; None where no one
    value suits all organs and images, so that the user must give it."""

    name: str
    higher_is_better: bool
    upper: float = math.inf
    unit: str = ""
    threshold: float | None = None

    @property
    def of_equal(self) -> float | None:
        """The value that equal masks have, and no others; None where others have it too."""
        return None if self.name in ("precision", "recall", "hd95") else self.upper if self.higher_is_better else 0.0

    @property
    def range(self) -> str:
        """The range in words."""
        return f"0 to {self.upper:g}" if math.isfinite(self.upper) else f"0 {self.unit} and above"


METRIC_SPECS: Final = {
    spec.name: spec
    for spec in (
        # Robinson et al. 2019: a Dice score of 0.7.
        MaskMetric(name="dsc", higher_is_better=True, upper=1, threshold=0.7),
        # The same masks: J = D / (2 - D).
        MaskMetric(name="jaccard", higher_is_better=True, upper=1, threshold=0.538),
        MaskMetric(name="precision", higher_is_better=True, upper=1),
        MaskMetric(name="recall", higher_is_better=True, upper=1),
        MaskMetric(name="asd", higher_is_better=False, unit="mm"),
        MaskMetric(name="hd", higher_is_better=False, unit="mm"),
        MaskMetric(name="hd95", higher_is_better=False, unit="mm"),
    )
}

OVERLAP_NAMES: Final = tuple(name for name, spec in METRIC_SPECS.items() if spec.higher_is_better)
DISTANCE_NAMES: Final = tuple(name for name, spec in METRIC_SPECS.items() if not spec.higher_is_better)

SLACK: Final = 1e-6
"""Excess over a range that rounding explains."""
PERCENT: Final = 100.0


def threshold_of(metric: MaskMetric, given: float | None) -> tuple[float | None, str]:
    """Return the threshold, `given` or the metric's own, and what is wrong with it; None and no mistake where there is none."""
    if given is None:
        return metric.threshold, ""
    if not 0 <= given <= metric.upper:
        percent = (
            f"; in percent? Then threshold={given / PERCENT:g}"
            if 1 < given <= PERCENT < math.inf and metric.upper == 1
            else ""
        )
        return None, f"threshold={given:g}: {metric.name} goes from {metric.range}{percent}"
    return given, ""


def out_of_range(metric: MaskMetric, value: float) -> bool:
    """Return True for a score that the metric cannot have; NaN is an undefined one, and distances may be infinite."""
    return value < -SLACK or value > metric.upper + SLACK
