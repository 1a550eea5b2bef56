"""The better way of a metric."""

from __future__ import annotations

import pytest

from paperbench.report import published
from paperbench.report.metrics import direction


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("coco/AP50", "higher"),
        ("voc07/AP/cat", "higher"),
        ("proposals/recall50@300", "higher"),
        ("test/error", "lower"),
        ("test/errors", "lower"),
        ("test/nll", "lower"),
        ("test/bound", "higher"),
        ("rca/mae", "lower"),
        ("rca/pearson_r", "higher"),
        ("rca/accuracy@0.7", "higher"),
        ("seconds_per_image", "lower"),
        ("train/samples_per_second", "higher"),
        ("test/angle", "same"),
    ],
)
def test_names_tell(metric: str, better: str) -> None:
    assert direction(metric) == better


def test_no_published_number_is_contradicted() -> None:
    entries = [entry for entry in published.all_published() if entry.metric is not None]

    assert entries
    assert [entry for entry in entries if direction(entry.metric or "") not in (entry.direction, "same")] == []
