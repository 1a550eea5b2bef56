"""Every metric of a run of reverse classification accuracy is declared, with its direction."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import get_args

import numpy as np
import pytest

from paperbench.catalog import MetricSpec
from paperbench.rca.config import MetricName
from paperbench.rca.evaluation import quality_metrics
from paperbench.rca.mask_metric_specs import METRIC_SPECS
from paperbench.rca.mask_metrics import DISTANCES, OVERLAPS
from paperbench.rca.metrics import METRICS
from paperbench.rca.prediction import Prediction, Rule
from paperbench.rca.scoring import MaskScores
from paperbench.records.metrics import MetricRegistry


def declared(name: str) -> MetricSpec | None:
    return next((spec for spec in METRICS if fnmatchcase(name, spec.name)), None)


def predictions(scale: float = 1.0) -> list[Prediction]:
    """Two segmenters and two labels, calibrated, with intervals; some distances infinite."""
    rng = np.random.default_rng(0)
    out = []
    for number in range(40):
        real, best = rng.uniform(size=2) * scale
        mask = MaskScores(
            case=f"case-{number // 4}",
            segmenter=f"net-{number % 2}",
            label=("lung", "heart")[number // 2 % 2],
            metric="dsc",
            scores=(("a", best),),
            real=real if number or scale == 1 else np.inf,
        )
        out.append(
            Prediction(mask=mask, best=best, mean=best, calibrated=best, low=0, high=1, reference="a", defined=1)
        )
    return out


@pytest.mark.parametrize("higher", [True, False])
def test_every_statistic_is_declared(higher: bool) -> None:
    found = quality_metrics(
        predictions(1 if higher else 20),
        threshold=0.7 if higher else 5,
        flagged=3,
        rule=Rule(higher=higher, limit=1.0 if higher else np.inf),
    )
    assert [name for name in found if declared(name) is None] == []
    assert {"rca/by/net-1/heart/mae", "rca/lung/failure_auroc", "rca/calibrated_mae", "rca/coverage"} <= set(found)


@pytest.mark.parametrize(
    ("name", "direction", "unit"),
    [
        ("rca/mae", "lower", ""),
        ("rca/failure_auroc", "higher", ""),
        ("rca/accuracy@0.7", "higher", ""),
        ("rca/by/unet-3/heart/pearson_r", "higher", ""),
        ("rca/coverage", "none", ""),
        ("hd95/mae", "lower", "mm"),
        ("segment/unet-3/left lung/dsc", "higher", ""),
    ],
)
def test_metrics_have_a_direction_and_a_unit(name: str, direction: str, unit: str) -> None:
    spec = declared(name)
    assert spec is not None
    assert (spec.direction, spec.unit) == (direction, unit)


def test_names_of_mask_metrics_are_those_that_are_computed() -> None:
    assert get_args(MetricName) == (*OVERLAPS, *DISTANCES) == tuple(METRIC_SPECS)
    assert [METRIC_SPECS[name].upper for name in OVERLAPS] == [1.0] * 4


def test_exact_names_stand_before_the_patterns_that_match_them() -> None:
    for place, spec in enumerate(METRICS):
        if "*" not in spec.name:
            assert declared(spec.name) is METRICS[place]


@pytest.mark.parametrize(("known", "first"), [(True, "rca/pearson_r"), (False, "rca/predicted_mean")])
def test_the_result_of_a_run_is_a_quality_and_no_count(known: bool, first: str) -> None:
    found = predictions()
    if not known:
        found = [replace(item, mask=replace(item.mask, real=np.nan)) for item in found]
    metrics = quality_metrics(found, threshold=0.7, flagged=3, rule=Rule())

    assert MetricRegistry(METRICS).headline(metrics)[0] == first
