"""Recall of proposals: by hand, and against a loop over images and pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from paperbench.detection.evaluation import recall
from paperbench.detection.evaluation.recall import THRESHOLDS, evaluate
from tests.detection.evaluation.cases import random_case, record

BOX = (0, 0, 100, 100)


def boxes(*rows: tuple[float, float, float, float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_recall_falls_at_the_overlap_of_the_proposal() -> None:
    result = evaluate([record([BOX], [1])], [boxes((0, 0, 100, 72))], counts=(100,))
    np.testing.assert_array_equal(result.recall[0], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    assert result.average[0] == pytest.approx(0.5)
    assert result.metrics() == {
        "proposals/recall50@100": 100.0,
        "proposals/recall70@100": 100.0,
        "proposals/AR@100": pytest.approx(50.0),
        "proposals/per_image": 1.0,
    }


def test_one_proposal_answers_for_one_object() -> None:
    twins = record([BOX, (0, 0, 100, 98)], [1, 1])
    assert evaluate([twins], [boxes(BOX)], counts=(10,)).recall[0, 0] == 0.5
    assert evaluate([twins], [boxes(BOX, BOX)], counts=(10,)).recall[0, 0] == 1


def test_only_the_best_n_proposals_count() -> None:
    proposals = boxes((150, 150, 160, 160), BOX)
    result = evaluate([record([BOX], [1])], [proposals], counts=(1, 2))
    np.testing.assert_array_equal(result.recall[:, 0], [0, 1])


@pytest.mark.parametrize(("available", "counts"), [(150, (100, 300)), (300, (100, 300)), (301, (100, 300, 1000)),
                                                   (2500, (100, 300, 1000, 2000)), (0, (100,))])  # fmt: skip
def test_counts_stop_where_more_proposals_would_change_nothing(available: int, counts: tuple[int, ...]) -> None:
    proposals = np.zeros((available, 4), np.float32)
    assert evaluate([record([BOX], [1])], [proposals]).counts == counts


def test_difficult_objects_and_crowds_are_not_asked_for() -> None:
    truth = record([BOX, (110, 110, 150, 150), (0, 110, 50, 150)], [1, 1, 1], difficult=[False, True, False],
                   crowd=[False, False, True])  # fmt: skip
    result = evaluate([truth], [boxes(BOX)])
    assert result.objects == 1
    assert result.recall[0, 0] == 1


def test_without_objects_nothing_is_defined() -> None:
    for records, proposals in (([], []), ([record([], [])], [boxes(BOX)])):
        result = evaluate(records, proposals)
        assert result.metrics() == {}
        assert np.isnan(result.average).all()


def test_without_proposals_nothing_is_covered() -> None:
    assert evaluate([record([BOX], [1])], [boxes()]).metrics()["proposals/AR@100"] == 0


def slow_coverage(truth: NDArray[np.float32], proposals: NDArray[np.float32]) -> list[float]:
    """Overlaps of the objects of one image, the best pair of those left being taken each time."""
    pairs = []
    for row, a in enumerate(proposals.astype(float)):
        for column, b in enumerate(truth.astype(float)):
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            inner = max(width, 0) * max(height, 0)
            pairs.append((inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner), row, column))
    covered = [0.0] * len(truth)
    rows, columns = set(), set()
    for overlap, row, column in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if row not in rows and column not in columns:
            covered[column] = overlap
            rows.add(row)
            columns.add(column)
    return covered


@pytest.mark.parametrize("cells", [1, 40, 4_000_000])
def test_agrees_with_a_loop_whatever_the_batches(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(recall, "_CELLS", cells)
    records, detections = random_case(3, images=15, difficult=0)
    proposals = [item.boxes for item in detections]
    result = evaluate(records, proposals, counts=(2, 5, 20))
    for row, count in enumerate(result.counts):
        every = [
            overlap
            for item, mine in zip(records, proposals, strict=True)
            for overlap in slow_coverage(item.boxes, mine[:count])
        ]
        expected = [np.mean(np.array(every) >= threshold) for threshold in THRESHOLDS]
        np.testing.assert_allclose(result.recall[row], expected)
    assert 0 < result.average[0] < result.average[-1] < 1


def test_refuses_what_does_not_fit_together() -> None:
    with pytest.raises(ValueError, match="1 images but proposals for 0"):
        evaluate([record([], [])], [])
