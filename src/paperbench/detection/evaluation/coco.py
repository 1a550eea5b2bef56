"""COCO's twelve numbers, computed by pycocotools itself; here stands only what feeds it and what reads its arrays.

pycocotools marks a number that no ground truth defines (no small object in the whole split, say) by -1. Here it is NaN
in `CocoResult` and absent from `metrics()`: results stay valid JSON, and no mean ever takes in a -1.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
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
from paperbench.detection.evaluation.detections import Detections, Ranked
from paperbench.detection.evaluation.fit import Flat, remarks_on_fit
from paperbench.detection.evaluation.result_remarks import remarks_on_boxes, remarks_on_images
from paperbench.detection.masks import as_runs, in_image
from paperbench.detection.metrics import class_metric
from paperbench.errors import DataError

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
    records: Sequence[Record], detections: Sequence[Detections], classes: Sequence[str], *, keep_ranked: bool = False
) -> CocoResult:
    """The twelve numbers and every class's AP; `detections[i]` belongs to `records[i]`.

    Crowd regions are pycocotools' own (any number of detections may lie in one). `difficult` objects are ignored as
    well, but matched like ordinary ones: neither found nor missed. Areas are the records', so that COCO's mask areas
    keep their meaning. Raises `ValueError` when the sequences differ in length or a label lies beyond the classes.
    """
    if len(records) != len(detections):
        raise ValueError(f"{len(records)} images but detections for {len(detections)}")
    highest = max((int(found.labels.max()) for found in detections if len(found)), default=0)
    if highest > len(classes):
        raise ValueError(f"a detection has label {highest}, but there are {len(classes)} classes")
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (record, found) in enumerate(zip(records, detections, strict=True)):
        for box, label, area, crowd, difficult in zip(
            _xywh(record.boxes), record.labels.tolist(), record.area.tolist(), record.crowd.tolist(),
            record.difficult.tolist(), strict=True,
        ):  # fmt: skip
            annotations.append(
                {"image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
                | {"difficult": difficult}
            )
        for box, label, score in zip(_xywh(found.boxes), found.labels.tolist(), found.scores.tolist(), strict=True):
            results.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    images = [{"id": image} for image in range(len(records))]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes)]
    truth = {"images": images, "categories": categories, "annotations": annotations}
    return _score(truth, results, keep_ranked=keep_ranked)


def evaluate_masks(
    records: Sequence[Record],
    masks: Callable[[int], NDArray[np.bool_]],
    detections: Sequence[Detections],
    classes: Sequence[str],
) -> CocoResult:
    """The same for masks: `masks(i)` (N, H, W) of the objects of `records[i]` against those that were drawn in `detections[i]`.

    Overlaps are those of masks, and so are the areas that decide what is small, medium or large.
    """
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (record, found) in enumerate(zip(records, detections, strict=True)):
        for mask, label, crowd, difficult in zip(
            masks(image), record.labels, record.crowd, record.difficult, strict=True
        ):
            annotations.append(
                {"image_id": image, "category_id": int(label), "segmentation": as_runs(mask), "area": float(mask.sum())}
                | {"iscrowd": int(crowd), "difficult": bool(difficult)}
            )
        drawn = found.masks
        if drawn is None:
            raise ValueError(f"the detections of image {image} have no masks")
        for mask, box, label, score in zip(drawn, found.boxes, found.labels, found.scores, strict=True):
            seen = in_image(mask, box, record.height, record.width)
            results.append(
                {"image_id": image, "category_id": int(label), "segmentation": as_runs(seen), "score": float(score)}
                | {"area": float(seen.sum())}
            )
    truth = {
        "images": [{"id": i, "height": record.height, "width": record.width} for i, record in enumerate(records)],
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(classes)],
        "annotations": annotations,
    }
    return _score(truth, results, kind="segm")


def evaluate_files(ground_truth: Path, results: Path, part: Part | None = None) -> CocoResult:
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
    truth = {
        "images": [{"id": place} for place in range(len(places))],
        "categories": [{"id": label, "name": name} for label, name in enumerate(content.classes, start=1)],
        "annotations": [
            {"image_id": image, "category_id": label, "bbox": xywh, "area": area, "iscrowd": int(crowd)}
            for image, label, xywh, area, crowd in zip(
                *(part.tolist() for part in (objects.image, objects.label, objects.xywh, area, objects.crowd)),
                strict=True,
            )
        ],
    }
    entries = [
        {"image_id": image, "category_id": label, "bbox": xywh, "score": score}
        for image, label, xywh, score in zip(*found, strict=True)
    ]
    return replace(_score(truth, entries), remarks=tuple(_remarks(content, places, objects, found)))


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
    boxes = np.array(found.xywh, np.float64).reshape(-1, 4)
    yield from remarks_on_boxes(_far_corners(boxes), sides[found.image])
    yield from remarks_on_images(objects.image[~objects.crowd].tolist(), found.image)
    wanted = ~objects.crowd
    truth = Flat(
        images=objects.image[wanted],
        labels=objects.label[wanted],
        boxes=_far_corners(objects.xywh[wanted]),
        scores=np.ones(int(wanted.sum())),
    )
    detections = Flat(
        images=np.array(found.image, np.int64),
        labels=np.array(found.label, np.int64),
        boxes=_far_corners(boxes),
        scores=np.array(found.score, np.float64),
    )
    yield from remarks_on_fit(truth, detections, content.classes)


def _far_corners(xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])


# --- pycocotools ------------------------------------------------------------------------------------------------------


class _Evaluation(COCOeval):
    """COCOeval that ignores `difficult` objects too; the original overwrites any `ignore` flag of the ground truth."""

    def _prepare(self) -> None:
        super()._prepare()  # pyright: ignore[reportAttributeAccessIssue]
        for objects in self._gts.values():  # pyright: ignore[reportAttributeAccessIssue]
            for entry in objects:
                entry["ignore"] = bool(entry["ignore"] or entry.get("difficult", False))


def _score(
    truth: dict[str, Any],
    results: list[dict[str, Any]],
    *,
    keep_ranked: bool = False,
    kind: Literal["bbox", "segm"] = "bbox",
) -> CocoResult:
    # Ids from 1: pycocotools takes an annotation with id 0 for "not matched".
    for number, entry in enumerate(truth["annotations"], start=1):
        entry["id"] = number
    for number, entry in enumerate(results, start=1):
        entry |= {"id": number, "iscrowd": 0}
        if kind == "bbox":
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    with redirect_stdout(io.StringIO()):  # it reports its progress by printing
        evaluation = _Evaluation(_index(truth), _index(truth | {"annotations": results}), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = {category["id"]: category["name"] for category in truth["categories"]}
    precision = np.asarray(evaluation.eval["precision"])  # (IoU, recall, class, area, detections allowed)
    return CocoResult(
        classes=tuple(names[number] for number in evaluation.params.catIds),
        numbers={name: _percent(value) for name, value in zip(NUMBERS, evaluation.stats, strict=True)},
        class_ap=_class_means(precision[:, :, :, 0, -1]),
        class_ap50=_class_means(precision[:1, :, :, 0, -1]),
        ranked=_ranked(evaluation) if keep_ranked else (),
    )


def _ranked(evaluation: COCOeval) -> tuple[Ranked, ...]:
    """Return the matches of pycocotools, in its own order: objects of any area, at most 100 detections an image."""
    params: Any = evaluation.params
    images, areas, thresholds = len(params.imgIds), len(params.areaRng), len(params.iouThrs)
    ranked = []
    for index in range(len(params.catIds)):
        start = index * areas * images
        by_image = evaluation.evalImgs[start : start + images]  # the first area is all of them
        given = [(image, entry) for image, entry in enumerate(by_image) if entry is not None]
        scores = np.concatenate([np.zeros(0), *(entry["dtScores"] for _, entry in given)])
        order = np.argsort(-scores, kind="mergesort")
        none = np.zeros((thresholds, 0), bool)
        hits = np.concatenate([none, *(np.asarray(entry["dtMatches"], bool) for _, entry in given)], axis=1)
        counted = ~np.concatenate([none, *(np.asarray(entry["dtIgnore"], bool) for _, entry in given)], axis=1)
        objects = np.zeros(images, np.int64)
        for image, entry in given:
            objects[image] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
        where = np.repeat([image for image, _ in given], [len(entry["dtScores"]) for _, entry in given])
        ranked.append(
            Ranked(
                scores=scores[order],
                images=where.astype(np.int64)[order],
                hits=hits[:, order] & counted[:, order],
                counted=counted[:, order],
                objects=objects,
            )
        )
    return tuple(ranked)


def _index(dataset: dict[str, Any]) -> COCO:
    indexed: Any = COCO()
    indexed.dataset = dataset
    indexed.createIndex()
    return indexed


def _percent(value: float) -> float:
    return float("nan") if value < 0 else 100.0 * float(value)


def _class_means(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, R, C) -> (C,) in percent; pycocotools writes -1 over the whole of a class without ground truth."""
    means = precision.mean(axis=(0, 1))
    return np.where(means < 0, np.nan, 100.0 * means)


def _xywh(boxes: NDArray[np.floating]) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1).tolist()
