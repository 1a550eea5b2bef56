"""COCO's twelve numbers, by the matching of `coco_matching` or by pycocotools itself, whose numbers they are.

pycocotools marks a number that no ground truth defines (no small object in the whole split, say) by -1. Here it is NaN
in `CocoResult` and absent from `metrics()`: results stay valid JSON, and no mean ever takes in a -1.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as runs
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paperbench.data.coco import within_part
from paperbench.data.coco_files import (
    UNLIKELY_AREA,
    Content,
    Id,
    Objects,
    Results,
    id_order,
    load,
    objects_of,
    read_results,
)
from paperbench.data.detection import Record
from paperbench.data.faults import Faults
from paperbench.data.held_out import Part
from paperbench.data.values import real
from paperbench.detection.config import CocoEngine
from paperbench.detection.evaluation.coco_matching import (
    Curves,
    Found,
    Matches,
    Overlap,
    Truth,
    box_overlap,
    curves,
    match,
)
from paperbench.detection.evaluation.detections import Detections, Ranked
from paperbench.detection.evaluation.fit import Flat, remarks_on_fit
from paperbench.detection.evaluation.result_remarks import remarks_on_boxes, remarks_on_images
from paperbench.detection.masks import as_runs, in_image
from paperbench.detection.metrics import class_metric
from paperbench.errors import DataError

Runs = Mapping[str, Any]
"""A mask as COCO's compressed runs."""
Shapes = NDArray[np.float64] | Sequence[Runs]
"""Boxes (N, 4), x, y, width, height, or N masks."""

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""In the order of pycocotools' `stats`: over IoU .5:.05:.95, at .5, at .75, by area (small < 32^2 <= medium < 96^2 <=
large), then recall by detections allowed per image (1, 10, 100) and by area at 100."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoResult:
    """numbers: the twelve in percent, NaN where undefined. class_ap, class_ap50: (C,) percent in the order of
    `classes`, NaN for a class without ground truth."""

    classes: tuple[str, ...]
    numbers: dict[str, float]
    class_ap: NDArray[np.float64]
    class_ap50: NDArray[np.float64]
    ranked: tuple[Ranked, ...] = ()
    """The matched detections of every class, where they were asked for."""
    remarks: tuple[str, ...] = ()
    """Sentences that belong beside the numbers."""

    def metrics(self, prefix: str = "coco") -> dict[str, float]:
        """`<prefix>/AP`, ..., `<prefix>/ARl` and `<prefix>/AP/<class>` in percent, without what is undefined."""
        named = {f"{prefix}/{name}": value for name, value in self.numbers.items()}
        named |= {
            f"{prefix}/AP/{class_metric(name)}": float(value)
            for name, value in zip(self.classes, self.class_ap, strict=True)
        }
        return {name: value for name, value in named.items() if not np.isnan(value)}


def evaluate(
    records: Sequence[Record],
    detections: Sequence[Detections],
    classes: Sequence[str],
    *,
    keep_ranked: bool = False,
    engine: CocoEngine = "numpy",
) -> CocoResult:
    """The twelve numbers and every class's AP; `detections[i]` belongs to `records[i]`.

    Crowd regions are COCO's own (any number of detections may lie in one). `difficult` objects are ignored as well, but matched
    like ordinary ones: neither found nor missed. Areas are the records', so that COCO's mask areas keep their meaning. Raises
    `ValueError` when the sequences differ in length or a label lies beyond the classes.
    """
    if len(records) != len(detections):
        raise ValueError(f"{len(records)} images but detections for {len(detections)}")
    highest = max((int(found.labels.max()) for found in detections if len(found)), default=0)
    if highest > len(classes):
        raise ValueError(f"a detection has label {highest}, but there are {len(classes)} classes")
    objects = _xywh(_joined([record.boxes for record in records], (0, 4)))
    boxes = _xywh(_joined([found.boxes for found in detections], (0, 4)))
    case = _Case(
        images=len(records),
        classes=tuple(classes),
        truth=_truth(records, _joined([record.area for record in records], (0,))),
        found=_found(detections, boxes[:, 2] * boxes[:, 3]),
        objects=objects,
        detections=boxes,
    )
    return case.score(engine, keep_ranked=keep_ranked)


def evaluate_masks(
    records: Sequence[Record],
    masks: Callable[[int], NDArray[np.bool_]],
    detections: Sequence[Detections],
    classes: Sequence[str],
    *,
    engine: CocoEngine = "numpy",
) -> CocoResult:
    """The same for masks: `masks(i)` (N, H, W) of the objects of `records[i]` against those that were drawn in `detections[i]`.

    Overlaps are those of masks, and so are the areas that decide what is small, medium or large.
    """
    objects: list[Runs] = []
    drawn: list[Runs] = []
    areas: list[float] = []
    drawn_areas: list[float] = []
    for image, (record, found) in enumerate(zip(records, detections, strict=True)):
        for mask in masks(image):
            objects.append(as_runs(mask))
            areas.append(float(mask.sum()))
        if found.masks is None:
            raise ValueError(f"the detections of image {image} have no masks")
        for mask, box in zip(found.masks, found.boxes, strict=True):
            seen = in_image(mask, box, record.height, record.width)
            drawn.append(as_runs(seen))
            drawn_areas.append(float(seen.sum()))
    case = _Case(
        images=len(records),
        classes=tuple(classes),
        truth=_truth(records, np.array(areas, np.float64)),
        found=_found(detections, np.array(drawn_areas, np.float64)),
        objects=objects,
        detections=drawn,
    )
    return case.score(engine)


def _truth(records: Sequence[Record], area: NDArray[np.floating]) -> Truth:
    crowd = _joined([record.crowd for record in records], (0,)).astype(bool)
    difficult = _joined([record.difficult for record in records], (0,)).astype(bool)
    return Truth(
        image=np.repeat(np.arange(len(records)), [len(record.labels) for record in records]),
        label=_joined([record.labels for record in records], (0,)).astype(np.int64),
        area=area.astype(np.float64),
        crowd=crowd,
        ignored=crowd | difficult,
    )


def _found(detections: Sequence[Detections], area: NDArray[np.float64]) -> Found:
    return Found(
        image=np.repeat(np.arange(len(detections)), [len(found) for found in detections]),
        label=_joined([found.labels for found in detections], (0,)).astype(np.int64),
        area=area,
        score=_joined([found.scores for found in detections], (0,)).astype(np.float64),
    )


def _joined(parts: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the parts as one array, which has `shape` where there are none."""
    return np.concatenate(parts) if parts else np.zeros(shape)


def _xywh(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1)


def evaluate_files(
    ground_truth: Path, results: Path, part: Part | None = None, *, engine: CocoEngine = "numpy"
) -> CocoResult:
    """The same for an annotation file (`instances_<split>.json`) and a file of results, with COCO's own ids.

    part: the images that are scored; None is all of them. Images and categories stand in the order of their ids, as pycocotools
    sorts them, and equal scores in that of the file. An annotation without `iscrowd` is no crowd, one without `area` has its box's.
    Raises `DataError` that names every faulty entry by file, key and value, and a file without an object to be found, which defines
    no number.
    """
    content = load(ground_truth)
    if not content.images:
        raise DataError(f"{ground_truth}: images is empty, there is nothing to score")
    faults = Faults(str(ground_truth), "error", remedy="Nothing was scored: correct the annotations")
    within = within_part(content, part) if part else [True] * len(content.image_ids)
    others = {key: -1 for key, own in zip(content.image_ids, within, strict=True) if not own}
    places: dict[Id, int] = {}
    scored = [key for key, own in zip(content.image_ids, within, strict=True) if own]
    for place, key in enumerate(sorted(scored, key=id_order)):
        if key in places:
            faults.add("duplicate image id", f"{ground_truth}, image {key!r}", "")
        places[key] = place
    objects = objects_of(content, others | places, faults)
    for place, xywh in zip(objects.places, objects.xywh.tolist(), strict=True):
        if not np.isfinite(xywh).all() or xywh[2] < 0 or xywh[3] < 0:
            faults.add(
                "no box", content.where(place), f"bbox is {xywh}, which needs finite numbers and sides of 0 or more"
            )
    faults.finish(1)
    area = objects.areas(np.prod(objects.xywh[:, 2:], axis=1))
    found = read_results(results, content, places)
    if objects.crowd.all():
        what = (
            f"all {len(objects.crowd)} annotations are crowd regions"
            if len(objects.crowd)
            else "there are no annotations"
        )
        raise DataError(f"{ground_truth}: {what}, so there is no object to be found and no number to compute")
    case = _Case(
        images=len(places),
        classes=content.classes,
        truth=Truth(objects.image, objects.label, area, objects.crowd, objects.crowd),
        found=Found(found.image, found.label, found.xywh[:, 2] * found.xywh[:, 3], found.score),
        objects=objects.xywh,
        detections=found.xywh,
    )
    return replace(case.score(engine), remarks=tuple(_remarks(content, places, objects, found)))


def _remarks(content: Content, places: Mapping[Id, int], objects: Objects, found: Results) -> Iterator[str]:
    if objects.without_area:
        yield f"{objects.without_area} annotations have no area and take that of their box: it decides what is small or large"
    if unlikely := int(objects.unlikely_area().sum()):
        yield f"{unlikely} annotations have {UNLIKELY_AREA}"
    sides = np.full((len(places), 2), np.inf)
    for key, entry in zip(content.image_ids, content.images, strict=True):
        width, height = real(entry.get("width")), real(entry.get("height"))
        if width and height and key in places:
            sides[places[key]] = width, height
    boxes = _far_corners(found.xywh)
    yield from remarks_on_boxes(boxes, sides[found.image])
    yield from remarks_on_images(objects.image[~objects.crowd].tolist(), found.image.tolist())
    wanted = ~objects.crowd
    truth = Flat(
        images=objects.image[wanted],
        labels=objects.label[wanted],
        boxes=_far_corners(objects.xywh[wanted]),
        scores=np.ones(int(wanted.sum())),
    )
    detections = Flat(images=found.image, labels=found.label, boxes=boxes, scores=found.score)
    yield from remarks_on_fit(truth, detections, content.classes)


def _far_corners(xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])


# --- scoring ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Case:
    """Objects and detections of all images, each where its box or mask says; labels are places in `classes`, from 1."""

    images: int
    classes: tuple[str, ...]
    truth: Truth
    found: Found
    objects: Shapes
    detections: Shapes

    def score(self, engine: CocoEngine, *, keep_ranked: bool = False) -> CocoResult:
        needed = engine == "numpy" or keep_ranked
        matches = match(self.truth, self.found, self._overlap()) if needed else None
        if engine == "numpy" and matches is not None:
            precision, recall = curves(self.truth, self.found, matches, len(self.classes))
        else:
            precision, recall = _by_pycocotools(self)
        return CocoResult(
            classes=self.classes,
            numbers=dict(zip(NUMBERS, _twelve(precision, recall), strict=True)),
            class_ap=_class_means(precision[:, :, :, 0, -1]),
            class_ap50=_class_means(precision[:1, :, :, 0, -1]),
            ranked=self._ranked(matches) if keep_ranked and matches is not None else (),
        )

    def _overlap(self) -> Overlap:
        crowd = self.truth.crowd
        if isinstance(self.detections, np.ndarray) and isinstance(self.objects, np.ndarray):
            return box_overlap(self.detections, self.objects, crowd)

        def overlap(chosen: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.float64]:
            overlaps = np.zeros(len(chosen))
            begins = np.flatnonzero(np.diff(chosen, prepend=-1))
            for begin, end in zip(begins, np.append(begins[1:], len(chosen)), strict=True):
                beside = of[begin:end]
                shapes: list[Any] = [self.objects[place] for place in beside]
                one: list[Any] = [self.detections[chosen[begin]]]
                overlaps[begin:end] = runs.iou(one, shapes, crowd[beside].tolist())[0]
            return overlaps

        return overlap

    def _ranked(self, matches: Matches) -> tuple[Ranked, ...]:
        """Return the matches by class: objects of any area, at most 100 detections an image."""
        labels, scores = self.found.label[matches.places], self.found.score[matches.places]
        of_image = self.found.image[matches.places]
        counted = ~matches.ignored[:, 0]
        hits = matches.matched[:, 0] & counted
        ranked = []
        for label in range(1, len(self.classes) + 1):
            own = np.flatnonzero(labels == label)
            order = own[np.argsort(-scores[own], kind="stable")]
            wanted = self.truth.image[(self.truth.label == label) & ~matches.outside[:, 0]]
            ranked.append(
                Ranked(
                    scores=scores[order],
                    images=of_image[order],
                    hits=hits[order].T,
                    counted=counted[order].T,
                    objects=np.bincount(wanted, minlength=self.images),
                )
            )
        return tuple(ranked)


def _twelve(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> list[float]:
    """Return `NUMBERS` in percent, NaN where no class defines one, of `Curves`."""
    sizes = range(1, 4)
    parts = [precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1]]
    parts += [precision[..., size, -1] for size in sizes]
    parts += [recall[..., 0, most] for most in range(3)] + [recall[..., size, -1] for size in sizes]
    return [100.0 * float(part[part > -1].mean()) if (part > -1).any() else float("nan") for part in parts]


def _class_means(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, R, C) -> (C,) in percent; a class without ground truth is -1 all over."""
    means = precision.mean(axis=(0, 1))
    return np.where(means < 0, np.nan, 100.0 * means)


# --- pycocotools ------------------------------------------------------------------------------------------------------


class _Evaluation(COCOeval):
    """COCOeval that ignores `difficult` objects too; the original overwrites any `ignore` flag of the ground truth."""

    def _prepare(self) -> None:
        super()._prepare()  # pyright: ignore[reportAttributeAccessIssue]
        for objects in self._gts.values():  # pyright: ignore[reportAttributeAccessIssue]
            for entry in objects:
                entry["ignore"] = bool(entry["ignore"] or entry["ignored"])


def _by_pycocotools(case: _Case) -> Curves:
    images = [{"id": image, "height": 0, "width": 0} for image in range(case.images)]  # for polygons alone
    categories = [{"id": label, "name": name} for label, name in enumerate(case.classes, start=1)]
    truth, found = case.truth, case.found
    annotations = _entries(truth, case.objects, iscrowd=truth.crowd.astype(int), ignored=truth.ignored)
    results = _entries(found, case.detections, iscrowd=np.zeros(len(found.score), int), score=found.score)
    known = {"images": images, "categories": categories}
    kind = "bbox" if isinstance(case.objects, np.ndarray) else "segm"
    with redirect_stdout(io.StringIO()):  # it reports its progress by printing
        evaluation = _Evaluation(
            _index(known | {"annotations": annotations}), _index(known | {"annotations": results}), kind
        )
        evaluation.evaluate()
        evaluation.accumulate()
    return Curves(np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"]))


def _entries(of: Truth | Found, shapes: Shapes, **values: NDArray[Any]) -> list[dict[str, Any]]:
    """Return annotations with ids from 1: pycocotools takes one with id 0 for "not matched"."""
    columns = {
        "id": range(1, len(of.image) + 1),
        "image_id": of.image.tolist(),
        "category_id": of.label.tolist(),
        "area": of.area.tolist(),
        **{name: value.tolist() for name, value in values.items()},
    }
    columns |= {"bbox": shapes.tolist()} if isinstance(shapes, np.ndarray) else {"segmentation": shapes}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _index(dataset: dict[str, Any]) -> COCO:
    indexed: Any = COCO()
    indexed.dataset = dataset
    indexed.createIndex()
    return indexed
