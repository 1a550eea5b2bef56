from __future__ import annotations

import pytest
import torch
import torchvision

from paperbench.detection import nms
from paperbench.detection.model_config import HeadConfig, YOLOModel
from paperbench.detection.nms import apart, batched_nms, postprocess, postprocess_boxes
from tests.detection.test_boxes import random_boxes

BOXES = torch.tensor([[10.0, 10, 50, 60], [11, 12, 48, 60], [8, 9, 40, 50], [100, 100, 150, 140], [99, 110, 155, 139]])
SCORES = torch.tensor([0.5, 0.7, 0.6, 0.9, 0.8])


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.1, {1, 3}), (0.3, {1, 3}), (0.5, {1, 3}), (0.8, {1, 2, 3, 4}), (0.9, {0, 1, 2, 3, 4})]
)
def test_the_published_example(threshold: float, kept: set[int]) -> None:
    order = SCORES.argsort(descending=True)
    index, valid = batched_nms(BOXES[order][None], SCORES[order][None], iou=threshold, keep=5)
    assert set(order[index[valid]].tolist()) == kept


def test_what_is_left_equals_an_image_by_image_loop() -> None:
    boxes = random_boxes(240, seed=7).view(3, 80, 4)
    scores = torch.rand(3, 80, generator=torch.Generator().manual_seed(8)).sort(dim=1, descending=True).values
    scores[1, 60:] = float("-inf")
    index, valid = batched_nms(boxes, scores, iou=0.3, keep=20)
    for image in range(3):
        real = int((scores[image] > float("-inf")).sum())
        expected = torchvision.ops.nms(boxes[image, :real], scores[image, :real], 0.3)[:20]
        assert index[image][valid[image]].tolist() == expected.tolist()


def test_candidates_that_are_not_there_suppress_nothing() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]]])
    scores = torch.tensor([[0.9, float("-inf"), float("-inf")]])
    index, valid = batched_nms(boxes, scores, iou=0.5, keep=3)
    assert index[valid].tolist() == [0]


def test_detections_of_an_image_do_not_depend_on_the_others_of_its_batch() -> None:
    """The images show nearly the same objects: an image whose boxes suppressed another's would leave it none."""
    stream = torch.Generator().manual_seed(3)
    boxes = random_boxes(30, seed=7).expand(3, -1, -1) + torch.rand(3, 30, 4, generator=stream)
    logits = 2 * torch.randn(3, 30, 4, generator=stream)
    deltas = 0.1 * torch.randn(3, 30, 4, 4, generator=stream)
    there, sizes = torch.rand(3, 30, generator=stream) < 0.8, torch.tensor([[300, 400], [250, 400], [300, 350]])
    head, dense = HeadConfig(score_threshold=0.2, nms_iou=0.3), YOLOModel(score_threshold=0.2, nms_iou=0.3)
    together = postprocess(logits, deltas, boxes, there, sizes, head)
    same_boxes = postprocess_boxes(logits.softmax(-1)[..., 1:], boxes, sizes, dense)
    for image in range(3):
        one = slice(image, image + 1)
        alone = postprocess(logits[one], deltas[one], boxes[one], there[one], sizes[one], head)
        assert alone.valid.any()
        for part, whole in zip(alone[:4], together[:4], strict=True):
            assert torch.equal(part, whole[one])
        alone = postprocess_boxes(logits[one].softmax(-1)[..., 1:], boxes[one], sizes[one], dense)
        assert alone.valid.any()
        for part, whole in zip(alone[:4], same_boxes[:4], strict=True):
            assert torch.equal(part, whole[one])


def test_one_call_on_boxes_moved_apart_leaves_what_a_call_a_group_does() -> None:
    boxes, groups = random_boxes(200, seed=5).double(), torch.arange(200) % 7
    scores = torch.rand(200, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    kept = torchvision.ops.nms(apart(boxes, groups), scores, 0.4)
    each = [
        rows[torchvision.ops.nms(boxes[rows], scores[rows], 0.4)]
        for rows in (torch.where(groups == k)[0] for k in range(7))
    ]
    assert sorted(kept.tolist()) == sorted(torch.cat(each).tolist())


def test_images_in_several_calls_are_suppressed_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = random_boxes(240, seed=7).view(3, 80, 4)
    scores = torch.rand(3, 80, generator=torch.Generator().manual_seed(8)).sort(dim=1, descending=True).values
    whole = batched_nms(boxes, scores, iou=0.3, keep=20)
    monkeypatch.setattr(nms, "_rows_at_once", lambda images, candidates, device: 2)
    parts = batched_nms(boxes, scores, iou=0.3, keep=20)
    assert all(torch.equal(part, other) for part, other in zip(parts, whole, strict=True))


def test_a_gpu_suppresses_as_many_images_at_once_as_the_operator_s_cost_allows() -> None:
    gpu = torch.device("cuda")
    assert nms._rows_at_once(16, 2000, gpu) == 12
    assert nms._rows_at_once(16, 30_000, gpu) == 1
    assert nms._rows_at_once(16, 0, gpu) == 16
    assert nms._rows_at_once(16, 2000, torch.device("cpu")) == 16
