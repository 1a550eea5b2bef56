"""The registry of metrics: which declaration holds for a name, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.catalog import MetricSpec, packages
from paperbench.records.metrics import (
    UNKNOWN,
    MetricRegistry,
    all_metrics,
    declared_by,
    document,
    metrics_of,
)
from paperbench.report import published

REGISTRY = MetricRegistry(
    (
        MetricSpec(name="a/*", meaning="any a", unit="%", direction="higher", format=".1f"),
        MetricSpec(name="a/x", meaning="that a", unit="s", direction="lower", format=".3f", headline=True),
        MetricSpec(name="a/y*", meaning="never seen: a/* fits first"),
        MetricSpec(name="*/b", meaning="any b", format=",.0f", headline=True),
    )
)


def test_the_exact_name_decides_then_the_first_pattern() -> None:
    assert [REGISTRY[name].meaning for name in ("a/x", "a/y1", "c/b")] == ["that a", "any a", "any b"]
    assert REGISTRY["c"] is UNKNOWN
    assert "c" not in REGISTRY
    assert "c/b" in REGISTRY


def test_headlines_come_in_the_order_of_declaration() -> None:
    names = ["c", "z/b", "a/y", "y/b", "a/x"]
    assert REGISTRY.order(names) == ["a/x", "z/b", "y/b", "c", "a/y"]
    assert REGISTRY.headlines(names) == ["a/x", "z/b", "y/b"]
    assert REGISTRY.headline({"a/y": 1.0, "z/b": 2}) == ("z/b", 2.0)
    assert REGISTRY.headline({"a/y": 1.0}) == ("", None)


def test_what_is_read_off_a_clock_says_so() -> None:
    of_clock = {
        spec.name
        for spec in all_metrics().specs
        if spec.unit in ("s", "/s") or "share of a part in the time" in spec.meaning
    }
    assert of_clock == {spec.name for spec in all_metrics().specs if spec.timed}
    assert {"seconds", "svd/share/*", "*/train/samples_per_second"} <= of_clock


def test_the_best_value_follows_the_declared_direction() -> None:
    assert REGISTRY.best("a/y", [1.0, 3.0, float("nan")]) == 3.0
    assert REGISTRY.best("a/x", [1.0, 3.0]) == 1.0
    assert REGISTRY.best("z/b", [1.0, 3.0]) is None
    assert REGISTRY.best("a/x", []) is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("a/y", 68.64999, "68.6 %"),
        ("a/x", 0.0, "0.000 s"),
        ("a/x", 0.00012, "0.00012 s"),  # not 0.000
        ("z/b", 225_672.0, "225,672"),
        ("c", 1 / 3, "0.3333"),
        ("a/y", float("inf"), "inf %"),
    ],
)
def test_a_value_is_written_as_declared(name: str, value: float, text: str) -> None:
    assert REGISTRY.text(name, value) == text


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("coco/AP50", "higher"),
        ("voc07/AP/cat", "higher"),
        ("pyramid/voc07/mAP", "higher"),
        ("svd/voc07/mAP", "higher"),
        ("svd/seconds/total", "lower"),
        ("proposals/recall50@300", "higher"),
        ("test/error", "lower"),
        ("test/errors", "lower"),
        ("test/nll", "lower"),
        ("test/bound", "higher"),
        ("segment/forest/dsc", "higher"),
        ("rca/mae", "lower"),
        ("rca/pearson_r", "higher"),
        ("rca/accuracy@0.7", "higher"),
        ("rca/failure_auroc", "higher"),
        ("seconds", "lower"),
        ("seconds_per_image", "lower"),
        ("train/samples_per_second", "higher"),
        ("test/angle", "none"),
    ],
)
def test_directions_of_the_packages(metric: str, better: str) -> None:
    assert all_metrics().direction(metric) == better


def test_no_published_number_is_contradicted() -> None:
    entries = [entry for entry in published.all_published() if entry.metric is not None]

    assert entries
    wrong = [e for e in entries if all_metrics().direction(e.metric or "") not in (e.direction, "none")]
    assert wrong == []


def test_the_metrics_of_a_task_are_its_package_s_first() -> None:
    own = metrics_of("detect-train").specs
    assert own[0].name.startswith(("coco", "voc"))
    assert metrics_of("a task of somebody's").specs == all_metrics().specs


@pytest.mark.parametrize("package", [item.module for item in packages() if item.package.tasks])
def test_declarations_are_complete(package: str) -> None:
    specs = declared_by(package)
    assert specs
    assert len({spec.name for spec in specs}) == len(specs)
    assert [spec.name for spec in specs if not spec.meaning] == []
    for spec in specs:
        assert format(1.5, spec.format)


def test_the_document_lists_every_metric() -> None:
    written = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
    assert written == document(), "python -m paperbench.records.metrics > docs/metrics.md"
