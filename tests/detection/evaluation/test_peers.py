"""Scores of files against the devkit's rules, written here as loops, and against pycocotools, on random sets with ties."""

from __future__ import annotations

import io
import itertools
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paperbench.detection.evaluation import coco, voc
from paperbench.detection.evaluation.files import read_truth, read_voc

Objects = dict[str, list[tuple[list[float], bool]]]
Lines = list[tuple[str, float, list[float]]]


def random_devkit(seed: int) -> tuple[list[str], Objects, Lines]:
    """Images, objects of one class with corners in pixels, and lines in an order of their own: few scores, so that many are equal,
    and boxes with fractions whose overlaps often lie at the threshold."""
    rng = np.random.default_rng(seed)
    images = [f"im{k}" for k in range(int(rng.integers(1, 6)))]
    fraction = rng.choice([0.0, 0.1, 0.25])

    def corners() -> list[float]:
        start, side = rng.integers(1, 40, 2), rng.integers(1, 25, 2)
        box = np.concatenate([start, start + side]).astype(np.float64)
        return (box + fraction * rng.integers(0, 4, 4)).round(2).tolist()

    objects = {image: [(corners(), bool(rng.random() < 0.2)) for _ in range(rng.integers(0, 5))] for image in images}
    lines: Lines = []
    for image in images:
        for box, _ in objects[image]:
            for _ in range(int(rng.integers(0, 3))):
                moved = np.array(box)
                moved[int(rng.integers(0, 4))] += float(rng.choice([0, 1, -1, fraction, (box[2] - box[0] + 1) / 2]))
                lines.append(
                    (image, float(rng.choice([0.9, 0.5, 0.1, 0.50000001])), [float(v) for v in moved.round(2)])
                )
        lines += [(image, float(rng.choice([0.9, 0.5])), corners()) for _ in range(int(rng.integers(0, 3)))]
    lines = [line for line in lines if line[2][2] >= line[2][0] and line[2][3] >= line[2][1]]
    rng.shuffle(lines)  # type: ignore[arg-type]
    return images, objects, lines


def devkit_ap(objects: Objects, lines: Lines, least: float = 0.5) -> tuple[float, float] | None:
    """`VOCevaldet.m` and `VOCap.m` as loops: average precision by 11 points and by area; None without an object to find."""
    wanted = sum(not difficult for own in objects.values() for _, difficult in own)
    if not wanted:
        return None
    taken = {(image, k): False for image, own in objects.items() for k in range(len(own))}
    true, false = [], []
    for image, _, box in sorted(lines, key=lambda line: -line[1]):  # `sorted` is stable, as MATLAB's `sort` is
        best, at = -np.inf, -1
        for k, (truth, _) in enumerate(objects[image]):
            width = min(box[2], truth[2]) - max(box[0], truth[0]) + 1
            height = min(box[3], truth[3]) - max(box[1], truth[1]) + 1
            if width > 0 and height > 0:
                own = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                other = (truth[2] - truth[0] + 1) * (truth[3] - truth[1] + 1)
                overlap = width * height / (own + other - width * height)
                if overlap > best:
                    best, at = overlap, k
        if best >= least and objects[image][at][1]:
            continue
        hit = best >= least and not taken[image, at]
        if hit:
            taken[image, at] = True
        true.append(float(hit))
        false.append(float(not hit))
    hits, misses = np.cumsum(true), np.cumsum(false)
    recall, precision = hits / wanted, hits / np.maximum(hits + misses, 1)
    eleven = sum(max(precision[recall >= level], default=0.0) for level in np.arange(0, 1.1, 0.1)) / 11
    ends, heights = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for k in range(len(heights) - 2, -1, -1):
        heights[k] = max(heights[k], heights[k + 1])
    steps = np.flatnonzero(ends[1:] != ends[:-1]) + 1
    return float(eleven), float(np.sum((ends[steps] - ends[steps - 1]) * heights[steps]))


def write_devkit(folder: Path, images: list[str], objects: Objects, lines: Lines) -> None:
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main" / "val.txt").write_text("\n".join(images))
    for image, own in objects.items():
        items = "".join(
            f"<object><name>cat</name><difficult>{int(difficult)}</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
            f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            for (a, b, c, d), difficult in own
        )
        (folder / "Annotations" / f"{image}.xml").write_text(f"<annotation>{items}</annotation>")
    text = "".join(f"{image} {score!r} {' '.join(map(repr, box))}\n" for image, score, box in lines)
    (folder / "comp4_det_val_cat.txt").write_text(text)


def test_files_score_as_the_devkit_scores_them(tmp_path: Path) -> None:
    compared = 0
    for seed in itertools.count():
        if compared == 300:
            break
        images, objects, lines = random_devkit(seed)
        folder = tmp_path / str(seed)
        write_devkit(folder, images, objects, lines)
        records = read_truth(folder, "val", ("cat",))
        result = voc.evaluate(records, read_voc(folder, "val", images, ("cat",)), ("cat",), inclusive=True)
        expected = devkit_ap(objects, lines)
        if expected is None:
            assert np.isnan(result.map_area)
        else:
            compared += 1
            assert (result.map_11_point, result.map_area) == pytest.approx(expected, abs=1e-12), f"set {seed}"


def random_coco(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    images = rng.permutation(40)[: int(rng.integers(1, 5))].tolist()
    categories = [{"id": key, "name": f"class {key}"} for key in rng.permutation(9)[: int(rng.integers(1, 4))].tolist()]
    truth, found = [], []
    for image in images:
        for _ in range(int(rng.integers(0, 6))):
            box = [*rng.integers(0, 60, 2).tolist(), *rng.integers(1, 120, 2).tolist()]
            category = int(rng.choice([entry["id"] for entry in categories]))
            truth.append(
                {"id": len(truth) + 1, "image_id": image, "category_id": category, "bbox": box,
                 "area": box[2] * box[3] * float(rng.choice([1.0, 0.4])), "iscrowd": int(rng.random() < 0.1)}
            )  # fmt: skip
            for _ in range(int(rng.integers(0, 3))):
                moved = (np.array(box) + rng.integers(-3, 4, 4) / 2).clip(0.5).tolist()
                found.append({"image_id": image, "category_id": category, "bbox": moved,
                              "score": float(rng.choice([0.9, 0.5, 0.2]))})  # fmt: skip
    rng.shuffle(found)  # type: ignore[arg-type]
    return {"images": [{"id": key} for key in images], "categories": categories, "annotations": truth}, found


def test_files_score_as_pycocotools_scores_them(tmp_path: Path) -> None:
    ground_truth, results = tmp_path / "gt.json", tmp_path / "dt.json"
    compared = 0
    for seed in itertools.count():
        if compared == 150:
            break
        truth, found = random_coco(seed)
        if not found or all(entry["iscrowd"] for entry in truth["annotations"]):
            continue
        ground_truth.write_text(json.dumps(truth))
        results.write_text(json.dumps(found))
        with redirect_stdout(io.StringIO()):
            peer = COCO(str(ground_truth))
            scorer = COCOeval(peer, peer.loadRes(str(results)), "bbox")
            scorer.evaluate()
            scorer.accumulate()
            scorer.summarize()
        expected = [100 * value if value >= 0 else np.nan for value in scorer.stats]
        ours = coco.evaluate_files(ground_truth, results)
        np.testing.assert_array_equal(list(ours.numbers.values()), expected, err_msg=f"set {seed}")
        assert ours.classes == tuple(f"class {key}" for key in sorted(entry["id"] for entry in truth["categories"]))
        compared += 1
