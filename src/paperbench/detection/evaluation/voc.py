"""PASCAL VOC average precision: Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010, section
4.2.

Matching follows the devkit's `VOCevaldet.m`. In the order of falling score each detection takes the object of its class
and image that it overlaps most, whether or not that one is free. It is a true positive when the overlap reaches the
threshold and no earlier detection took the object; a second detection of the same object is a false positive; a
detection whose object is `difficult` counts as neither. Since the choice of the object does not depend on earlier
detections, the whole data set is matched at once, without a loop over images, classes or detections.

Equal scores keep the order of the file, as in the devkit, whose `sort` is stable: `Detections.order` holds it. Without it they keep
the order of images and, within one, the order in which they were given. Scores, boxes and overlaps are float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperbench.data.detection import Record, box_areas
from paperbench.detection.evaluation.detections import Detections, Ranked

APMethod = Literal["11-point", "11-point-exact", "area"]

REFERENCE_GRID = np.arange(0.0, 1.1, 0.1)
"""Recall levels of the code behind the published numbers. Its 0.3, 0.6 and 0.7 lie one rounding step above the
fraction: a recall of exactly 3/10 does not reach level 0.3, and 3 of 10 objects found without a mistake score 3/11
instead of 4/11."""

EXACT_GRID = np.arange(11) / 10
"""The same levels correctly rounded, so that a recall of exactly k/10 reaches level k/10."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """One class. precision, recall, scores: (D,) float64 in the order of falling score; detections of difficult objects
    are left out. `objects` counts the ground truth that had to be found."""

    name: str
    objects: int
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class VocResult:
    """Average precision as a fraction, per class in the order of `classes`: (C,) float64.

    A class without ground truth has no average precision: its entry is NaN and the means leave it out. They are NaN
    themselves where no class has any ground truth.
    """

    classes: tuple[str, ...]
    ap_11_point: NDArray[np.float64]
    ap_area: NDArray[np.float64]
    curves: tuple[Curve, ...]

    @property
    def map_11_point(self) -> float:
        return _mean_defined(self.ap_11_point)

    @property
    def map_area(self) -> float:
        return _mean_defined(self.ap_area)


def evaluate(
    records: Sequence[Record],
    detections: Sequence[Detections],
    classes: Sequence[str],
    *,
    iou: float = 0.5,
    inclusive: bool = False,
    exact: bool = False,
) -> VocResult:
    """Precision, recall and average precision of every class.

    `detections[i]` belongs to `records[i]`. A match needs an overlap of at least `iou`. Crowd regions count as
    difficult.

    `inclusive` takes corners as pixels that belong to the box, widths being x2 - x1 + 1 as in the devkit. It is for
    boxes that still carry such corners, as `files` reads them. Pixels a..b as the continuous a-1..b overlap the same, but for the
    last bit of numbers with a fraction, which decides where an overlap is exactly `iou`.
    `exact` scores 11 points on correctly rounded recall levels
    (`EXACT_GRID`).

    Raises `ValueError` when the two sequences differ in length or a detection's label lies beyond the classes.
    """
    ranked = rank(records, detections, classes, iou=iou, inclusive=inclusive)
    curves = []
    for name, found in zip(classes, ranked, strict=True):
        hits = np.cumsum(found.hits[0], dtype=np.float64)
        total = int(found.objects.sum())
        recall = hits / total if total else np.zeros_like(hits)
        precision = hits / np.arange(1, len(hits) + 1)
        curves.append(Curve(name=name, objects=total, recall=recall, precision=precision, scores=found.scores))

    eleven: APMethod = "11-point-exact" if exact else "11-point"
    return VocResult(
        classes=tuple(classes),
        ap_11_point=np.array([_ap_of(curve, eleven) for curve in curves]),
        ap_area=np.array([_ap_of(curve, "area") for curve in curves]),
        curves=tuple(curves),
    )


def rank(
    records: Sequence[Record],
    detections: Sequence[Detections],
    classes: Sequence[str],
    *,
    iou: float = 0.5,
    inclusive: bool = False,
) -> list[Ranked]:
    """Every class's detections by falling score with what each of them found; arguments and errors as of `evaluate`."""
    if len(records) != len(detections):
        raise ValueError(f"{len(records)} images but detections for {len(detections)}")
    truth = _flatten_truth(records)
    found = _flatten_found(detections)
    if len(found.labels) and found.labels.max() > len(classes):
        raise ValueError(f"a detection has label {found.labels.max()}, but there are {len(classes)} classes")

    order = np.lexsort((found.order, -found.scores, found.labels))
    found = _Flat(**{name: values[order] for name, values in vars(found).items()})
    matched = _best_objects(truth, found, images=len(records), iou=iou, inclusive=inclusive)

    ignored = np.zeros(len(matched), bool)
    ignored[matched >= 0] = truth.ignored[matched[matched >= 0]]
    wanted = np.flatnonzero((matched >= 0) & ~ignored)
    _, first = np.unique(matched[wanted], return_index=True)  # the highest-scored detection of each object
    true_positive = np.zeros(len(matched), bool)
    true_positive[wanted[first]] = True

    bounds = np.searchsorted(found.labels, np.arange(1, len(classes) + 2))
    ranked = []
    for index in range(len(classes)):
        of_class = slice(bounds[index], bounds[index + 1])
        counted = ~ignored[of_class]
        objects = truth.images[(truth.labels == index + 1) & ~truth.ignored]
        ranked.append(
            Ranked(
                scores=found.scores[of_class][counted],
                images=found.images[of_class][counted],
                hits=true_positive[of_class][counted][None],
                counted=np.ones((1, int(counted.sum())), bool),
                objects=np.bincount(objects, minlength=len(records)),
            )
        )
    return ranked


def average_precision(recall: NDArray[np.float64], precision: NDArray[np.float64], method: APMethod = "area") -> float:
    """Average precision in 0..1 of one class; recall (D,) never falls, precision (D,) belongs to the same detections.

    `area`: area under the precision made monotone from the right (VOC 2010 and later). `11-point`: mean of the best
    precision at a recall of at least 0, 0.1, ..., 1 (VOC 2007), on the levels of the published code;
    `11-point-exact` on correctly rounded ones.
    """
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if method == "area":
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    levels = REFERENCE_GRID if method == "11-point" else EXACT_GRID
    reached = np.searchsorted(recall, levels, side="left")
    return float(np.append(envelope, 0.0)[reached].sum() / len(levels))


def voc_average_precision(
    truth: Sequence[Mapping[str, ArrayLike]],
    detections: Sequence[Mapping[str, ArrayLike]],
    *,
    iou: float = 0.5,
    method: APMethod = "area",
) -> dict[int, float]:
    """Return the average precision, 0 to 1, of every label that the ground truth has; `detections[i]` belongs to `truth[i]`.

    truth[i]: `boxes` (G, 4) xyxy in pixels, `labels` (G,) integers, and `difficult` (G,) bool where some objects count as
    neither found nor missed. detections[i]: `boxes` (N, 4), `labels` (N,) and `scores` (N,), higher is surer. Boxes are continuous:
    width is x2 - x1. A match needs an overlap of at least `iou`. `method`: `area` (VOC 2010 and later), `11-point` (VOC 2007);
    see `average_precision`.

    Raises `ValueError` where lengths or shapes disagree, a number is not finite, a part is missing, or `method` is unknown.
    """
    if method not in get_args(APMethod):
        raise ValueError(f"method={method!r}: no such method; there are {', '.join(get_args(APMethod))}")
    for name, images, needed in (
        ("truth", truth, ("boxes", "labels")),
        ("detections", detections, ("boxes", "labels", "scores")),
    ):
        for number, image in enumerate(images):
            if missing := [key for key in needed if key not in image]:
                raise ValueError(f"{name}[{number}]: has no {', '.join(missing)}; give {', '.join(needed)}")
    wanted = [np.asarray(image["labels"], np.int64).reshape(-1) for image in truth]
    found = [np.asarray(image["labels"], np.int64).reshape(-1) for image in detections]
    labels = np.unique(np.concatenate([np.zeros(0, np.int64), *wanted, *found]))
    records = [_as_record(image, np.searchsorted(labels, own) + 1) for image, own in zip(truth, wanted, strict=True)]
    given = [
        Detections(
            boxes=np.asarray(image["boxes"], np.float64).reshape(-1, 4),
            scores=np.asarray(image["scores"], np.float64).reshape(-1),
            labels=np.searchsorted(labels, own) + 1,
        )
        for image, own in zip(detections, found, strict=True)
    ]
    curves = evaluate(records, given, [str(label) for label in labels], iou=iou).curves
    return {int(label): _ap_of(curve, method) for label, curve in zip(labels, curves, strict=True) if curve.objects}


def _as_record(image: Mapping[str, ArrayLike], labels: NDArray[np.int64]) -> Record:
    boxes = np.asarray(image["boxes"], np.float64).reshape(-1, 4)
    if len(boxes) != len(labels):
        raise ValueError(f"{len(boxes)} boxes of ground truth have {len(labels)} labels")
    nothing = np.zeros(len(labels), bool)
    difficult = np.asarray(image.get("difficult", nothing), bool).reshape(-1)
    if len(difficult) != len(labels):
        raise ValueError(f"{len(boxes)} boxes of ground truth have {len(difficult)} flags `difficult`")
    right, bottom = boxes[:, 2:].max(axis=0, initial=0)
    return Record(
        image_id="",
        source="",
        height=int(np.ceil(bottom)),
        width=int(np.ceil(right)),
        boxes=boxes,
        labels=labels,
        difficult=difficult,
        crowd=nothing,
        area=box_areas(boxes),
    )


# --- flat arrays over the whole data set ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Flat:
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    scores: NDArray[np.float64]
    order: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Truth:
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    ignored: NDArray[np.bool_]


def _flatten_truth(records: Sequence[Record]) -> _Truth:
    return _Truth(
        boxes=np.concatenate([np.zeros((0, 4)), *(record.boxes for record in records)]).astype(np.float64),
        labels=np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)]),
        images=_image_of_each([len(record.labels) for record in records]),
        ignored=np.concatenate([np.zeros(0, np.bool_), *(record.difficult | record.crowd for record in records)]),
    )


def _flatten_found(detections: Sequence[Detections]) -> _Flat:
    count = sum(map(len, detections))
    given = [found.order for found in detections if found.order is not None]
    if given and sum(map(len, given)) < count:
        raise ValueError("some images say in which order their detections stand, and others do not")
    return _Flat(
        order=np.concatenate(given) if given else np.arange(count),
        boxes=np.concatenate([np.zeros((0, 4)), *(found.boxes for found in detections)]).astype(np.float64),
        labels=np.concatenate([np.zeros(0, np.int64), *(found.labels for found in detections)]),
        images=_image_of_each([len(found) for found in detections]),
        scores=np.concatenate([np.zeros(0), *(found.scores for found in detections)]).astype(np.float64),
    )


def _image_of_each(counts: list[int]) -> NDArray[np.int64]:
    """[2, 0, 1] -> [0, 0, 2]: the image index of every box."""
    return np.repeat(np.arange(len(counts)), np.array(counts, np.int64))


def _best_objects(truth: _Truth, found: _Flat, *, images: int, iou: float, inclusive: bool) -> NDArray[np.int64]:
    """(D,) index of the object each detection overlaps most, -1 where that overlap is below `iou`; ties: the first
    object."""
    best = np.full(len(found.labels), -1, np.int64)
    by_key = np.argsort(truth.labels * images + truth.images, kind="stable")
    keys = (truth.labels * images + truth.images)[by_key]
    wanted = found.labels * images + found.images
    start = np.searchsorted(keys, wanted, side="left")
    count = np.searchsorted(keys, wanted, side="right") - start

    # Every detection beside every object of its image and class, as one ragged list of pairs.
    with_objects = np.flatnonzero(count)
    if not len(with_objects):
        return best
    count, start = count[with_objects], start[with_objects]
    first_pair = np.cumsum(count) - count
    detection = np.repeat(with_objects, count)
    gt = by_key[np.arange(count.sum()) - np.repeat(first_pair - start, count)]
    overlap = paired_iou(found.boxes[detection], truth.boxes[gt], inclusive=inclusive)

    highest = np.maximum.reduceat(overlap, first_pair)
    is_highest = overlap == np.repeat(highest, count)
    chosen = np.minimum.reduceat(np.where(is_highest, gt, len(truth.labels)), first_pair)
    best[with_objects] = np.where(highest >= iou, chosen, -1)
    return best


def paired_iou(a: NDArray[np.float64], b: NDArray[np.float64], *, inclusive: bool) -> NDArray[np.float64]:
    """(P,) overlap of a[p] with b[p]; boxes (P, 4) xyxy. Boxes without area overlap nothing."""
    extra = 1.0 if inclusive else 0.0
    size = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + extra
    intersection = np.prod(np.maximum(size, 0.0), axis=1)
    area_a = np.prod(a[:, 2:] - a[:, :2] + extra, axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2] + extra, axis=1)
    union = area_a + area_b - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _ap_of(curve: Curve, method: APMethod) -> float:
    return average_precision(curve.recall, curve.precision, method) if curve.objects else float("nan")


def _mean_defined(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
