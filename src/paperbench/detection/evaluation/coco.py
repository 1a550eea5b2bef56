"""COCO's twelve numbers, computed by pycocotools itself; here stands only what feeds it and what reads its arrays.

pycocotools marks a number that no ground truth defines (no small object in the whole split, say) by -1. Here it is NaN
in `CocoResult` and absent from `metrics()`: results stay valid JSON, and no mean ever takes in a -1.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paperbench.data.detection import Record
from paperbench.detection.evaluation.detections import Detections, Ranked
from paperbench.detection.masks import as_runs, in_image
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

    def metrics(self, prefix: str = "coco") -> dict[str, float]:
        """`<prefix>/AP`, ..., `<prefix>/ARl` and `<prefix>/AP/<class>` in percent, without what is undefined."""
        named = {f"{prefix}/{name}": value for name, value in self.numbers.items()}
        named |= {f"{prefix}/AP/{name}": float(value) for name, value in zip(self.classes, self.class_ap, strict=True)}
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


def evaluate_files(ground_truth: Path, results: Path) -> CocoResult:
    """The same for an annotation file (`instances_<split>.json`) and a file of results, with COCO's own ids.

    An annotation without `iscrowd` is no crowd, one without `area` has its box's. Raises `DataError` naming the file,
    the entry and what is wrong with it: not JSON, a missing key, an unknown image or category, a number that is none.
    """
    truth = _load_json(ground_truth)
    if not isinstance(truth, dict) or not all(isinstance(truth.get(key), list) for key in _PARTS):
        raise DataError(f"{ground_truth}: COCO annotations are an object with the lists {', '.join(_PARTS)}")
    images, categories = _ids(ground_truth, truth, "images"), _ids(ground_truth, truth, "categories")
    for index, entry in enumerate(truth["annotations"]):
        _check_entry(f"{ground_truth}: annotations[{index}]", entry, images, categories)
        entry.setdefault("iscrowd", 0)
        entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
    found = _load_json(results)
    if not isinstance(found, list):
        raise DataError(f"{results}: COCO results are a list of objects with image_id, category_id, bbox and score")
    for index, entry in enumerate(found):
        where = f"{results}: entry {index}"
        _check_entry(where, entry, images, categories)
        if not _is_number(entry.get("score")):
            raise DataError(f"{where}: score is {entry.get('score')!r}, not a finite number")
    return _score({key: truth[key] for key in _PARTS}, found)


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


def _xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1).tolist()


# --- files ------------------------------------------------------------------------------------------------------------

_PARTS = ("images", "categories", "annotations")


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error


def _ids(path: Path, truth: Mapping[str, Any], part: str) -> set[Any]:
    needed = ("id", "name") if part == "categories" else ("id",)
    for index, entry in enumerate(truth[part]):
        missing = [key for key in needed if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise DataError(f"{path}: {part}[{index}] has no {' and no '.join(missing)}")
    if not truth[part]:
        raise DataError(f"{path}: {part} is empty, there is nothing to score")
    return {entry["id"] for entry in truth[part]}


def _check_entry(where: str, entry: Any, images: set[Any], categories: set[Any]) -> None:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: {entry!r} is not an object")
    for key, known in (("image_id", images), ("category_id", categories)):
        if key not in entry:
            raise DataError(f"{where}: no {key}")
        if not isinstance(entry[key], int | str) or entry[key] not in known:
            raise DataError(f"{where}: {key} {entry[key]!r} is not in the ground truth's {_owner(key)}")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise DataError(f"{where}: bbox is {box!r}, not [x, y, width, height]")
    if box[2] < 0 or box[3] < 0:
        raise DataError(f"{where}: bbox is {box!r}, with width {box[2]} and height {box[3]}")


def _owner(key: str) -> str:
    return "images" if key == "image_id" else "categories"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
