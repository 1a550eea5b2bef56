"""Every metric of a run of distillation is declared, with its direction."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from paperbench.catalog import MetricSpec
from paperbench.distill.metrics import METRICS


def declared(name: str) -> MetricSpec | None:
    return next((spec for spec in METRICS if fnmatchcase(name, spec.name)), None)


@pytest.mark.parametrize(
    ("name", "direction", "unit"),
    [
        ("teacher-3/test/errors", "lower", ""),
        ("distilled/omitted/right", "higher", "%"),
        ("corrected/test/error", "lower", "%"),
        ("baseline/validation/nll", "lower", "nats"),
        ("specialists/conditional/accuracy", "higher", "%"),
        ("coverage/10/relative_gain", "higher", "%"),
        ("specialists/count", "none", ""),
    ],
)
def test_metrics_have_a_direction_and_a_unit(name: str, direction: str, unit: str) -> None:
    spec = declared(name)
    assert spec is not None
    assert (spec.direction, spec.unit) == (direction, unit)


def test_exact_names_stand_before_the_patterns_that_match_them() -> None:
    for place, spec in enumerate(METRICS):
        if "*" not in spec.name:
            assert declared(spec.name) is METRICS[place]
