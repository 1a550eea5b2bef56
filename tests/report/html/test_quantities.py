"""Rounding, units and order."""

from __future__ import annotations

import pytest

from paperbench.catalog import MetricSpec
from paperbench.records.metrics import MetricRegistry
from paperbench.report.html.quantities import Quantities, duration, plural, significant, size

METRICS = (
    MetricSpec(name="coco/AP", meaning="", unit="%", format=".1f", headline=True),
    MetricSpec(name="test/bound", meaning="", unit="nats", format=".2f", headline=True),
    MetricSpec(name="rca/*", meaning="", format=".3f", headline=True),
    MetricSpec(name="model/parameters", meaning="", format=",.0f", headline=True),
    MetricSpec(name="coco/*", meaning="", unit="%", format=".1f"),
    MetricSpec(name="proposals/recall*", meaning="", unit="%", format=".1f"),
    MetricSpec(name="seconds_per_image", meaning="", unit="s", format=".4f"),
    MetricSpec(name="train/samples_per_second", meaning="", unit="/s", format=".1f"),
)


@pytest.fixture
def quantities() -> Quantities:
    return Quantities(MetricRegistry(METRICS))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("coco/AP", 68.64999, "68.6"),
        ("coco/AP/cat", 68.65001, "68.7"),
        ("coco/AP", 0.0, "0.0"),
        ("coco/AP", 0.012, "0.012"),  # not 0.0
        ("test/bound", -98.765, "\u221298.77"),
        ("rca/mae", 0.04449, "0.044"),
        ("model/parameters", 225_672.0, "225,672"),
        ("train/loss", 0.2213338278, "0.2213"),
        ("train/lr", 6.48889e-10, "6.489e\u221210"),
        ("some/count", 1234567, "1,234,567"),
        ("some/number", 1234567.25, "1,234,567"),
        ("coco/AP", float("inf"), "inf"),
    ],
)
def test_rounding(quantities: Quantities, name: str, value: float, text: str) -> None:
    assert quantities.number(name, value) == text


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("coco/AP", "%"),
        ("coco/AP/cat", "%"),
        ("test/bound", "nats"),
        ("rca/mae", ""),
        ("proposals/recall50@100", "%"),
        ("proposals/per_image", ""),
        ("seconds_per_image", "s"),
        ("train/samples_per_second", "/s"),
        ("train/loss", ""),
    ],
)
def test_units(quantities: Quantities, name: str, unit: str) -> None:
    assert quantities.unit(name) == unit
    assert quantities.with_unit(name, 2.0).endswith(unit)


def test_headlines_come_first_and_in_their_order(quantities: Quantities) -> None:
    names = ["train/loss", "rca/b", "coco/AP", "rca/a", "coco/AP50"]

    assert quantities.order(names) == ["coco/AP", "rca/b", "rca/a", "train/loss", "coco/AP50"]
    assert quantities.headlines(names) == ["coco/AP", "rca/b", "rca/a"]


def test_words() -> None:
    assert [duration(seconds) for seconds in (8.44, 115.8, 11_100)] == ["8.4 s", "1 min 56 s", "3 h 05 min"]
    assert [size(count) for count in (999, 25_815_255, 3e9, 5e12)] == ["999 B", "25.8 MB", "3.0 GB", "5000.0 GB"]
    assert [plural(count, "run") for count in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert significant(0.0) == "0"
