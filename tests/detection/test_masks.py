"""Masks on their way: from pixels into frames, into batches, back into pixels, scored and drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as runs
from torchvision.ops import roi_align

from paperbench.config.compose import compose
from paperbench.data import shapes
from paperbench.data.image_store import ImageStore
from paperbench.detection.batches import MaskBatchMaker, MaskStore
from paperbench.detection.drawing import colour, draw
from paperbench.detection.evaluation.coco import evaluate_masks
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.files import write_coco
from paperbench.detection.evaluation.scoring import evaluate
from paperbench.detection.masks import (
    FRAME,
    FULL,
    MaskHead,
    as_bytes,
    as_runs,
    as_shares,
    in_frames,
    in_image,
    mask_loss,
    mask_targets,
    matched_objects,
)
from paperbench.detection.tasks.train import plan
from paperbench.errors import ConfigError
from tests.data.sets import in_memory, record

SCENES = shapes.read(split="test", images=6, size=96)


def seen(index: int) -> NDArray[np.bool_]:
    assert SCENES.masks is not None
    return SCENES.masks(index)


def drawn(index: int, size: int = FRAME) -> Detections:
    """The truth of a scene as detections."""
    record = SCENES.records[index]
    return Detections(
        boxes=record.boxes,
        scores=np.full(len(record.labels), 0.9, np.float32),
        labels=record.labels,
        masks=in_frames(seen(index), record.boxes, size),
    )


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_a_frame_holds_the_part_of_the_object_in_its_box() -> None:
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 10:20, 30:50] = True
    frame = in_frames(mask, np.array([[30, 10, 50, 30]], np.float32), 4)[0]
    np.testing.assert_array_equal(frame, np.repeat([255, 255, 0, 0], 4).reshape(4, 4))
    assert in_frames(np.zeros((0, 4, 4), bool), np.zeros((0, 4), np.float32)).shape == (0, FRAME, FRAME)


def test_frames_lead_back_to_the_pixels() -> None:
    for index, item in enumerate(SCENES.records):
        for mask, box, frame in zip(seen(index), item.boxes, drawn(index).masks, strict=True):  # pyright: ignore[reportArgumentType]
            back = in_image(frame, box, 96, 96)
            assert (back & mask).sum() / (back | mask).sum() > 0.9


def test_boxes_beyond_the_border_and_without_extent_are_cut() -> None:
    full = np.full((8, 8), 255, np.uint8)
    assert in_image(full, np.array([-10.0, -5, 6, 4]), 20, 30).sum() == 6 * 4
    assert in_image(full, np.array([25.0, 15, 99, 99]), 20, 30).sum() == 5 * 5
    assert not in_image(full, np.array([5.0, 5, 5, 9]), 20, 30).any()
    assert not in_image(full, np.array([50.0, 5, 60, 9]), 20, 30).any()


def test_neighbouring_boxes_share_no_pixel() -> None:
    full = np.full((8, 8), 255, np.uint8)
    left, right = (in_image(full, np.array(box), 10, 10) for box in ([0, 0, 4.5, 10], [4.5, 0, 10, 10]))
    assert not (left & right).any()
    assert (left | right).all()


def test_runs_are_json_and_lead_back() -> None:
    mask = seen(1)[0]
    encoded = json.loads(json.dumps(as_runs(mask)))
    assert encoded["size"] == [96, 96]
    np.testing.assert_array_equal(runs.decode(encoded).astype(bool), mask)


# --- data -------------------------------------------------------------------------------------------------------------


def test_what_is_seen_of_generated_objects_is_disjoint_and_in_their_boxes() -> None:
    for index, item in enumerate(SCENES.records):
        masks = seen(index)
        assert masks.shape == (len(item.labels), 96, 96)
        assert masks.sum(0).max() <= 1
        for mask, (x1, y1, x2, y2) in zip(masks, item.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert len(rows) >= 10
            assert columns.min() >= x1 - 1
            assert columns.max() <= x2
            assert rows.min() >= y1 - 1
            assert rows.max() <= y2


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_batches_carry_the_masks_of_their_objects(flip: float) -> None:
    store = ImageStore(SCENES, short_side=96, max_side=96, device=torch.device("cpu"), cache_mb=16)
    masks = MaskStore(SCENES, cache_mb=1)
    make = MaskBatchMaker(SCENES, store, masks, flip=flip, seed=0, multiple=32, training=True)
    indices = np.array([3, 1, 3])
    batch = make(indices, np.zeros(3, np.int64))
    assert batch.masks is not None
    assert batch.masks.shape == (*batch.labels.shape, FRAME, FRAME)
    for row, index in enumerate(indices):
        own = drawn(index).masks
        assert own is not None
        expected = own[:, :, ::-1] if flip else own
        np.testing.assert_array_equal(batch.masks[row, : len(own)], expected)
        assert not batch.masks[row, len(own) :].any()


def test_masks_of_objects_that_are_not_trained_on_are_left_out() -> None:
    dataset, _ = in_memory(record(0, 20, 20, [[0, 0, 10, 10], [5, 5, 15, 15]], difficult=[True, False]))
    squares = np.zeros((2, 20, 20), bool)
    squares[1, 5:15, 5:10] = True
    dataset = replace(dataset, masks=lambda index: squares)
    store = ImageStore(dataset, short_side=20, max_side=20, device=torch.device("cpu"), cache_mb=1)
    make = MaskBatchMaker(dataset, store, MaskStore(dataset, cache_mb=0), flip=0.0, seed=0, multiple=32, training=True)
    masks = make(np.array([0]), np.array([0])).masks
    assert masks is not None
    assert masks.shape[:2] == (1, 1)
    half = FRAME // 2
    assert (masks[0, 0, 3:-3, 3 : half - 3] == 255).all()  # less at the edges, which are interpolated
    assert (masks[0, 0, :, half + 3 :] == 0).all()


def test_data_without_masks_are_refused(tmp_path: Path) -> None:
    dataset, _ = in_memory(record(0, 20, 20))
    with pytest.raises(ValueError, match="memory has no masks"):
        MaskStore(dataset, cache_mb=1)
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / "VOCdevkit/VOC2007" / part).mkdir(parents=True)
    for split in ("trainval", "test"):
        (tmp_path / f"VOCdevkit/VOC2007/ImageSets/Main/{split}.txt").write_text("one\n")
    with pytest.raises(ConfigError, match=r"data=voc has no masks .* data=shapes, pennfudan, coco or yolo"):
        plan(compose("mask-rcnn", ["data=voc", f"data.root={tmp_path}", "model.weights=null"]).config)


def test_images_that_do_not_fit_the_square_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.max_side=200: .* model.side=160; give data.short_side=160"):
        plan(compose("yolo", ["data.max_side=200"]).config)


# --- scores and pictures ----------------------------------------------------------------------------------------------


def test_the_truth_scores_100_and_empty_masks_nothing() -> None:
    right = [drawn(index) for index in range(len(SCENES))]
    metrics = evaluate(SCENES, right)
    assert metrics["coco/mask/AP50"] == pytest.approx(100)
    assert metrics["coco/mask/AP75"] == pytest.approx(100)
    assert metrics["coco/AP"] == pytest.approx(100)
    wrong = [replace(found, masks=np.zeros_like(found.masks)) for found in right]
    metrics = evaluate(SCENES, wrong)
    assert metrics["coco/mask/AP50"] == 0
    assert metrics["coco/AP"] == pytest.approx(100)
    assert not any("mask" in name for name in evaluate(SCENES, [replace(found, masks=None) for found in right]))


def test_areas_are_those_of_the_masks() -> None:
    assert SCENES.masks is not None
    thin = np.zeros((1, 96, 96), bool)
    thin[0, :2, :] = (
        True  # a box of 96 x 2 pixels' area 192: small as a mask, and so is the box; but not with a large box
    )
    item = replace(record(0, 96, 96, [[0, 0, 96, 96]]), labels=np.array([1]))
    frame = in_frames(thin, item.boxes)
    found = Detections(boxes=item.boxes, scores=np.ones(1, np.float32), labels=np.array([1], np.int64), masks=frame)
    result = evaluate_masks([item], lambda index: thin, [found], ("a",))
    assert result.numbers["APs"] == pytest.approx(100)
    assert np.isnan(result.numbers["APl"])


def test_every_detection_needs_its_mask() -> None:
    with pytest.raises(ValueError, match="2 detections need masks"):
        Detections(
            boxes=np.zeros((2, 4), np.float32),
            scores=np.zeros(2, np.float32),
            labels=np.ones(2, np.int64),
            masks=np.zeros((1, 4, 4), np.uint8),
        )
    with pytest.raises(ValueError, match="the detections of image 0 have no masks"):
        evaluate_masks(SCENES.records[:1], seen, [replace(drawn(0), masks=None)], SCENES.classes)


def test_masks_go_into_cocos_results(tmp_path: Path) -> None:
    write_coco(tmp_path / "results.json", [7], [1, 2, 3, 4, 5], [drawn(1)], [(96, 96)])
    entries = json.loads((tmp_path / "results.json").read_text())
    assert len(entries) == len(SCENES.records[1].labels)
    first = runs.decode(entries[0]["segmentation"]).astype(bool)
    assert (first & seen(1)[0]).sum() / (first | seen(1)[0]).sum() > 0.9


def test_a_mask_is_drawn_where_the_object_is() -> None:
    grey = np.full((400, 400, 3), 128, np.uint8)
    left = np.zeros((8, 8), np.uint8)
    left[:, :4] = 255
    found = Detections(
        boxes=np.array([[100, 100, 300, 300]], np.float32),
        scores=np.array([0.9], np.float32),
        labels=np.array([3], np.int64),
        masks=left[None],
    )
    picture = np.asarray(draw(grey, found, ("a", "b", "c"), smallest=0)).astype(int)
    assert (picture[200, 250] == 128).all()
    assert (picture[50, 150] == 128).all()
    towards = np.array(colour(3)) - 128
    assert ((picture[200, 150] - 128) * np.sign(towards) >= 0).all()
    assert np.abs(picture[200, 150] - 128).max() > 20


def test_targets_are_the_part_of_the_object_in_the_region() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, :, :4] = 255
    box = torch.tensor([[10.0, 20, 50, 60]])
    half = torch.tensor([[1.0, 1, 0, 0]]).expand(4, -1)

    def of(region: list[float]) -> torch.Tensor:
        return mask_targets(mask, box, torch.tensor([region]), size=4)[0]

    assert of([10, 20, 50, 60]).equal(half)
    assert of([10, 20, 30, 60]).equal(torch.ones(4, 4))
    assert of([30, 20, 50, 60]).equal(torch.zeros(4, 4))
    # A region twice as wide and high as the object's box: what lies outside the box is not the object.
    outside = torch.zeros(4, 4)
    outside[:2, 0] = 1
    assert of([10, 20, 90, 100]).equal(outside)


def test_the_loss_counts_positive_regions_alone() -> None:
    logits = torch.zeros(3, 2, 2)
    targets = torch.ones(3, 2, 2)
    logits[2] = 100
    assert mask_loss(logits, targets, torch.tensor([True, False, False])).item() == pytest.approx(0.6931, abs=1e-4)
    assert mask_loss(logits, targets, torch.tensor([True, False, True])).item() == pytest.approx(0.3466, abs=1e-4)
    assert mask_loss(logits, targets, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_each_region_gets_the_mask_of_its_own_class() -> None:
    torch.manual_seed(0)
    head = MaskHead(in_channels=3, channels=4, convolutions=1, classes=2)
    pooled = torch.randn(2, 3, 5, 5)
    every = head.masks(head.layers(pooled))
    assert head(pooled, torch.tensor([2, 1])).shape == (2, 10, 10)
    torch.testing.assert_close(head(pooled, torch.tensor([2, 1])), torch.stack([every[0, 1], every[1, 0]]))


def test_padding_is_nobodys_object() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
    truth = torch.tensor([[[19.0, 19, 30, 30], [0, 0, 9, 9], [0, 0, 0, 0]]])
    assert matched_objects(boxes, truth, torch.tensor([[1, 1, 0]])).tolist() == [[1, 0]]


# --- targets against RoIAlign of the mask in its image ----------------------------------------------------------------

CANVAS = 200
"""Pixels of a side of the images that the following masks lie in."""


def soft_masks(count: int, smallest: float, largest: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (N, 4) of that many pixels a side, filled with smooth fields of shares: (N, H, W) in 0..1."""
    rng = np.random.default_rng(int(largest))
    planes, boxes = np.zeros((count, CANVAS, CANVAS), np.float32), np.zeros((count, 4), np.float32)
    for plane, box in zip(planes, boxes, strict=True):
        width, height = rng.uniform(smallest, largest, 2).round().astype(int)
        left, top = rng.integers(0, CANVAS - width + 1), rng.integers(0, CANVAS - height + 1)
        knots = torch.from_numpy(rng.uniform(0, 1, (1, 1, *rng.integers(2, 6, 2))).astype(np.float32))
        field = torch.nn.functional.interpolate(knots, (height, width), mode="bilinear", align_corners=True)
        plane[top : top + height, left : left + width] = field[0, 0].numpy()
        box[:] = left, top, left + width, top + height
    return planes, boxes


def hard_masks(count: int, smallest: float, largest: float) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Polygons that pycocotools rasterised, (N, H, W), and their tight boxes."""
    rng = np.random.default_rng(int(largest))
    planes, boxes = [], []
    while len(planes) < count:
        side = rng.uniform(smallest, largest)
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, 9)), side / 2 * rng.uniform(0.5, 1, 9)
        centre = rng.uniform(side / 2, CANVAS - side / 2, (2, 1))
        corners = centre + radii * np.stack([np.cos(angles), np.sin(angles)])
        polygon: Any = [corners.T.flatten().tolist()]
        outline: Any = runs.frPyObjects(polygon, CANVAS, CANVAS)
        plane = runs.decode(outline)[..., 0].astype(bool)
        if plane.sum() >= 4:
            rows, columns = np.nonzero(plane)
            planes.append(plane)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return np.stack(planes), np.array(boxes, np.float32)


@pytest.mark.parametrize("size", [14, 28])
@pytest.mark.parametrize("make", [soft_masks, hard_masks])
@pytest.mark.parametrize(("smallest", "largest"), [(4, 12), (12, 32), (32, 96), (96, 190)])
def test_targets_are_roi_align_of_the_image(
    make: Callable[..., tuple[NDArray[Any], NDArray[np.float32]]], smallest: float, largest: float, size: int
) -> None:
    """As in detectron2, where a target is the RoIAlign of the whole mask at the region, at least one half."""
    planes, boxes = make(60, smallest, largest)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + np.random.default_rng(0).uniform(-0.25, 0.25, boxes.shape).astype(np.float32) * sides
    regions = torch.from_numpy(moved)
    number = torch.arange(len(planes), dtype=torch.float32)[:, None]
    whole = torch.from_numpy(planes.astype(np.float32))[:, None]
    expected = roi_align(whole, torch.cat([number, regions], 1), size, aligned=True)[:, 0] >= 0.5
    found = mask_targets(torch.from_numpy(in_frames(planes, boxes)), torch.from_numpy(boxes), regions, size=size) > 0.5
    union = (found | expected).sum((1, 2))
    overlap = torch.where(union > 0, (found & expected).sum((1, 2)) / union.clamp(min=1), 1.0)
    assert overlap.mean() > 0.97
    assert found.sum() / expected.sum() == pytest.approx(1, abs=0.02)


def test_the_type_of_a_mask_says_its_range() -> None:
    shares = torch.rand(6, FRAME, FRAME, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[10.0, 20, 50, 60]]).expand(6, -1)
    regions = boxes + torch.tensor([3.0, -4, 2, 5])
    as_floats, as_integers = (mask_targets(masks, boxes, regions, size=28) for masks in (shares, as_bytes(shares)))
    assert (as_floats != as_integers).float().mean() < 0.01
    hard = shares >= 0.5
    as_floats, as_bools = (mask_targets(masks, boxes, regions, size=28) for masks in (hard.float(), hard))
    assert as_floats.equal(as_bools)
    assert as_bytes(torch.tensor([0.0, 0.2, 1.0, float("nan")])).tolist() == [0, 51, FULL, 0]
    assert as_shares(torch.tensor([0, 51, FULL], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert as_shares(torch.tensor([False, True])).tolist() == [0, 1]
    with pytest.raises(TypeError, match=r"masks are uint8 .*, bool or floating point .*, not torch.int64"):
        mask_targets(torch.ones(1, 4, 4, dtype=torch.int64), boxes[:1], regions[:1], size=4)


def test_masks_of_any_type_are_pasted_alike() -> None:
    shares = np.random.default_rng(0).uniform(0, 1, (28, 28)).astype(np.float32)
    box = np.array([3.0, 4, 61, 57])
    pasted = in_image(as_bytes(torch.from_numpy(shares)).numpy(), box, 64, 64)
    assert (pasted != in_image(shares, box, 64, 64)).mean() < 0.01  # pyright: ignore[reportArgumentType]
    assert in_image(shares >= 0.5, box, 64, 64).sum() == pytest.approx(pasted.sum(), rel=0.1)  # pyright: ignore[reportArgumentType]


def test_padding_has_targets_too_and_they_are_finite() -> None:
    nothing = torch.zeros(2, FRAME, FRAME, dtype=torch.uint8)
    regions = torch.tensor([[0.0, 0, 0, 0], [5, 5, 900, 900]])
    assert not mask_targets(nothing, torch.zeros(2, 4), regions, size=28).any()
