"""Every number of a detector on a data set, under the names of `results.json`; all of them in percent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet
from paperbench.detection.config import CocoEngine
from paperbench.detection.evaluation import coco, recall, voc
from paperbench.detection.evaluation.bootstrap import coco_intervals, voc_intervals
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.metrics import class_metric


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """`metrics` for `results.json`; `voc` and `recall` hold the curves that the figures draw."""

    metrics: dict[str, float]
    voc: voc.VocResult
    recall: recall.RecallResult | None


def evaluate(
    dataset: DetectionSet, detections: Sequence[Detections], proposals: Sequence[NDArray[np.float32]] | None = None
) -> dict[str, float]:
    """The metrics of `measure` alone."""
    return measure(dataset, detections, proposals).metrics


def measure(
    dataset: DetectionSet,
    detections: Sequence[Detections],
    proposals: Sequence[NDArray[np.float32]] | None = None,
    *,
    resamples: int = 0,
    engine: CocoEngine = "numpy",
) -> Evaluation:
    """Score `detections[i]`, and `proposals[i]` ((P, 4) xyxy, best first), against `dataset.records[i]`.

    ======================  ==========================================================================
    `coco/AP`, `coco/AP50`  and pycocotools' other ten; `coco/AP/<class>`
    `coco/mask/AP`          and so on: the same twelve for masks, of nets that draw them on data that have them
    `voc07/mAP`             mean of the 11-point average precisions; `voc07/AP/<class>`
    `voc/mAP`               mean of those by area; `voc/AP/<class>`
    `proposals/AR@N`        average recall of the best N proposals; `proposals/recall50@N`, `proposals/recall70@N`
    ======================  ==========================================================================

    With `resamples`, `coco/AP`, `coco/AP50`, `voc07/mAP` and `voc/mAP` come with the ends of their 95 % intervals over
    as many resamples of the images, as `<name>/low` and `<name>/high`.

    A number that the ground truth does not define (a class or size without any object) has no entry. Raises
    `ValueError` when the sequences differ in length.
    """
    by_coco = coco.evaluate(dataset.records, detections, dataset.classes, keep_ranked=resamples > 0, engine=engine)
    by_voc = voc.evaluate(dataset.records, detections, dataset.classes)
    covered = None if proposals is None else recall.evaluate(dataset.records, proposals)
    metrics = by_coco.metrics() | voc_metrics(by_voc) | ({} if covered is None else covered.metrics())
    if dataset.masks is not None and detections and all(found.masks is not None for found in detections):
        drawn = coco.evaluate_masks(dataset.records, dataset.masks, detections, dataset.classes, engine=engine)
        metrics |= drawn.metrics("coco/mask")
    if resamples:
        metrics |= coco_intervals(by_coco.ranked, resamples=resamples)
        metrics |= voc_intervals(voc.rank(dataset.records, detections, dataset.classes), resamples=resamples)
    return Evaluation(metrics=metrics, voc=by_voc, recall=covered)


def voc_metrics(result: voc.VocResult) -> dict[str, float]:
    """`voc07/mAP`, `voc/mAP` and both per class, in percent, without what is undefined."""
    named = {"voc07/mAP": result.map_11_point, "voc/mAP": result.map_area}
    for metric, by_class in (("voc07/AP", result.ap_11_point), ("voc/AP", result.ap_area)):
        named |= {
            f"{metric}/{class_metric(name)}": float(ap) for name, ap in zip(result.classes, by_class, strict=True)
        }
    return {name: 100.0 * value for name, value in named.items() if not np.isnan(value)}
