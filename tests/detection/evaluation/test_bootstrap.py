"""Intervals over other draws of the test images: held against the evaluators run on images that really stand there twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from paperbench.data.detection import Record
from paperbench.detection.evaluation import coco, voc
from paperbench.detection.evaluation.bootstrap import coco_intervals, coco_means, voc_intervals, voc_means
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.scoring import measure
from tests.detection.evaluation.cases import CLASSES, data_set, perfect, random_case, record

NAMES = ("coco/AP", "coco/AP50", "voc07/mAP", "voc/mAP")


def repeated(
    records: Sequence[Record], detections: Sequence[Detections], times: Sequence[int]
) -> tuple[list[Record], list[Detections]]:
    """The data set in which image i stands `times[i]` times."""
    where = np.repeat(np.arange(len(records)), times).tolist()
    return [replace(records[i], image_id=f"{i}-{n}") for n, i in enumerate(where)], [detections[i] for i in where]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [False, True])
def test_weighting_an_image_is_repeating_it(seed: int, ties: bool) -> None:
    records, detections = random_case(seed)
    if ties:  # between images: within one, copies of two equal scores would alternate, in an order that nothing decides
        detections = [replace(item, scores=1 / np.arange(2, len(item) + 2, dtype=np.float32)) for item in detections]
    draws = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=4)
    by_coco = coco.evaluate(records, detections, CLASSES, keep_ranked=True)
    weighted = np.concatenate(
        [coco_means(by_coco.ranked, draws), voc_means(voc.rank(records, detections, CLASSES), draws)], axis=1
    )
    for times, row in zip(draws, weighted, strict=True):
        images, given = repeated(records, detections, times)
        metrics = measure(data_set(images), given).metrics
        np.testing.assert_allclose(100 * row, [metrics[name] for name in NAMES], rtol=1e-9)


def test_crowds_and_difficult_objects_count_as_neither() -> None:
    box, other = (10, 10, 50, 50), (100, 100, 150, 150)
    records = [
        record([box, other], [1, 1], crowd=[False, True]),
        record([box, other], [1, 1], difficult=[False, True], image_id=1),
    ]
    detections = perfect(records)
    weights = np.array([[1, 1], [2, 0], [0, 2]])
    ranked = coco.evaluate(records, detections, ("cat",), keep_ranked=True).ranked
    np.testing.assert_allclose(coco_means(ranked, weights), 1.0)
    np.testing.assert_allclose(voc_means(voc.rank(records, detections, ("cat",)), weights), 1.0)


def test_a_class_that_no_drawn_image_holds_is_left_out_of_the_mean() -> None:
    records = [record([(10, 10, 50, 50)], [1]), record([(10, 10, 50, 50)], [2], image_id=1)]
    detections = [perfect(records)[0], Detections.empty()]
    weights = np.array([[1, 1], [2, 0], [0, 2]])
    ranked = coco.evaluate(records, detections, ("cat", "dog"), keep_ranked=True).ranked
    np.testing.assert_allclose(coco_means(ranked, weights)[:, 0], [0.5, 1.0, 0.0])
    none = voc_means(voc.rank(records, detections, ("cat", "dog")), np.zeros((1, 2), np.int64))
    assert np.isnan(none).all()


def test_the_interval_holds_the_value_and_narrows_with_more_images() -> None:
    widths = []
    for images in (12, 100):
        records, detections = random_case(3, images=images)
        metrics = measure(data_set(records), detections, resamples=200).metrics
        for name in NAMES:
            assert metrics[f"{name}/low"] < metrics[name] < metrics[f"{name}/high"]
        widths.append(metrics["voc/mAP/high"] - metrics["voc/mAP/low"])
    assert widths[1] < 0.6 * widths[0]


def test_the_same_images_give_the_same_interval() -> None:
    records, detections = random_case(1)
    ranked = coco.evaluate(records, detections, CLASSES, keep_ranked=True).ranked
    assert coco_intervals(ranked, resamples=50) == coco_intervals(ranked, resamples=50)
    assert voc_intervals(voc.rank(records, detections, CLASSES), resamples=50).keys() == {
        f"{name}/{end}" for name in ("voc07/mAP", "voc/mAP") for end in ("low", "high")
    }


def test_there_is_no_interval_unless_it_is_asked_for() -> None:
    records, detections = random_case(1)
    metrics = measure(data_set(records), detections).metrics
    assert not [name for name in metrics if name.endswith(("/low", "/high"))]


def test_the_interval_holds_the_mean_of_95_in_100_draws() -> None:
    records, detections = random_case(2, images=30)
    by_voc = voc.rank(records, detections, CLASSES)
    by_coco = coco.evaluate(records, detections, CLASSES, keep_ranked=True).ranked
    ends = voc_intervals(by_voc, resamples=2000) | coco_intervals(by_coco, resamples=2000)
    draws = np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), size=2000)
    means = 100 * np.concatenate([coco_means(by_coco, draws), voc_means(by_voc, draws)], axis=1)
    for name, column in zip(NAMES, means.T, strict=True):
        below, above = (column < ends[f"{name}/low"]).mean(), (column > ends[f"{name}/high"]).mean()
        assert (below, above) == pytest.approx((0.025, 0.025), abs=0.012), name
