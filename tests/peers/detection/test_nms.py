"""Suppression, proposals and detections, against a plain greedy loop and torchvision's detectors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from paperbench.detection.model_config import HeadConfig, RpnConfig, YOLOModel
from paperbench.detection.nms import batched_nms, postprocess, postprocess_boxes
from paperbench.detection.rpn import propose
from tests.peers.cases import cases, random
from tests.peers.detection.inputs import boxes, plain_iou

KINDS = ("random", "whole", "same", "nested", "touching", "beyond", "huge", "point", "empty", "one", "none")


def greedy(candidates: Tensor, order: list[int], threshold: float) -> list[int]:
    """Take the best that is left, drop what overlaps it by more than `threshold`, and so on."""
    iou = plain_iou(candidates, candidates)
    kept: list[int] = []
    for candidate in order:
        if all(iou[candidate, other] <= threshold for other in kept):
            kept.append(candidate)
    return kept


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.0, 1.0])
@cases(KINDS, 3)
def test_suppression_by_score(kind: str, seed: int, threshold: float) -> None:
    """Three images at once, with candidates that are not there."""
    rng = random(kind, seed)
    candidates = torch.stack([boxes(kind, rng, 20) for _ in range(3)])
    scores = torch.from_numpy(rng.normal(0, 1, candidates.shape[:2]).astype(np.float32))
    scores = scores.masked_fill(torch.from_numpy(rng.random(scores.shape) < 0.2), -torch.inf)
    if kind == "whole":
        scores = (scores * 2).round() / 2  # equal scores keep their order
    scores = scores.sort(dim=1, descending=True).values

    index, valid = batched_nms(candidates, scores, iou=threshold, keep=6)

    for image in range(3):
        order = torch.nonzero(scores[image] > -torch.inf)[:, 0].tolist()
        assert index[image][valid[image]].tolist() == greedy(candidates[image], order, threshold)[:6]


# --- proposals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@cases(("random", "beyond", "small", "sure", "few", "one"), 5)
def test_proposals_are_torchvisions(kind: str, seed: int, training: bool) -> None:
    rng = random(kind + str(training), seed)
    anchors = boxes("beyond" if kind == "beyond" else "random", rng, {"few": 5, "one": 1}.get(kind, 60))
    if kind == "small":
        anchors = anchors * 0.1
    count = len(anchors)
    scores = torch.from_numpy(rng.permutation(2 * count).reshape(2, count).astype(np.float32)) / (
        0.5 if kind == "sure" else 30
    )
    deltas = torch.from_numpy(rng.normal(0, 0.3, (2, count, 4)).astype(np.float32))
    sizes = torch.tensor([[90, 100], [60, 70]])
    config = RpnConfig(
        pre_nms_topk_train=40,
        post_nms_topk_train=20,
        pre_nms_topk_test=30,
        post_nms_topk_test=10,
        nms_iou=0.6,
        min_size=4.0,
    )

    found = propose(scores, deltas, anchors, sizes, torch.ones(2), config, training=training)

    topk = config.topk(training=training)
    theirs = SimpleNamespace(
        pre_nms_top_n=lambda: topk[0], post_nms_top_n=lambda: topk[1], min_size=4.0, score_thresh=0.0, nms_thresh=0.6
    )
    theirs._get_top_n_idx = lambda scores, levels: RegionProposalNetwork._get_top_n_idx(theirs, scores, levels)  # pyright: ignore
    decoded = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode(deltas.flatten(0, 1), [anchors, anchors]).view(2, count, 4)
    shapes = [(int(h), int(w)) for h, w in sizes]
    # Torchvision ranks by probabilities, which are all one where the net is sure; ours by the logits themselves.
    ranks = torch.where(scores > 0, 1, -1) * 0 + scores / scores.max() * 4 if kind == "sure" else scores
    expected, _ = RegionProposalNetwork.filter_proposals(theirs, decoded, ranks, shapes, [count])  # pyright: ignore
    for image in range(2):
        assert_close(found.boxes[image][found.valid[image]], expected[image], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("broken", ["logit", "delta", "both", "everything"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_finite_is_as_if_it_were_not_there(seed: int, value: float, broken: str) -> None:
    rng = random(broken + str(value), seed)
    anchors = boxes("random", rng, 30)
    scores = torch.from_numpy(rng.permutation(30).astype(np.float32))[None]
    deltas = torch.from_numpy(rng.normal(0, 0.3, (1, 30, 4)).astype(np.float32))
    bad = torch.from_numpy(rng.random(30) < (1.1 if broken == "everything" else 0.3))
    spoiled_scores, spoiled_deltas = scores.clone(), deltas.clone()
    if broken != "delta":
        spoiled_scores[0, bad] = value
    if broken != "logit":
        spoiled_deltas[0, bad, int(rng.integers(0, 4))] = value
    config = RpnConfig(post_nms_topk_train=20, min_size=1.0)
    sizes, scales = torch.tensor([[100, 100]]), torch.ones(1)

    found = propose(spoiled_scores, spoiled_deltas, anchors, sizes, scales, config, training=True)

    rest = propose(scores[:, ~bad], deltas[:, ~bad], anchors[~bad], sizes, scales, config, training=True)
    assert_close(found.boxes[found.valid], rest.boxes[rest.valid], atol=0, rtol=0)
    assert found.boxes.isfinite().all()


# --- detections -------------------------------------------------------------------------------------------------------


@cases(("random", "crowded", "one-class", "sure", "nothing", "beyond", "few", "degenerate"), 6)
def test_detections_are_torchvisions(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    classes, count = (1 if kind == "one-class" else 4), (3 if kind == "few" else 25)
    proposals = torch.stack([boxes("beyond" if kind == "beyond" else "random", rng, count) for _ in range(3)])
    if kind == "crowded":
        proposals = proposals[:, :1] + torch.from_numpy(rng.normal(0, 3, proposals.shape).astype(np.float32))
        proposals[..., 2:] = torch.maximum(proposals[..., 2:], proposals[..., :2] + 1)
    if kind == "degenerate":
        proposals[:, ::3, 2:] = proposals[:, ::3, :2]
    spread = {"sure": 30.0, "nothing": 0.0}.get(kind, 2.0)
    logits = torch.from_numpy(rng.normal(0, spread, (3, count, classes + 1)).astype(np.float32))
    deltas = torch.from_numpy(rng.normal(0, 1, (3, count, classes + 1, 4)).astype(np.float32))
    valid = torch.from_numpy(rng.random((3, count)) < 0.8)
    sizes = torch.tensor([[90, 100], [60, 70], [100, 40]])
    config = HeadConfig(score_threshold=0.25, nms_iou=0.4, detections_per_image=12)

    found = postprocess(logits, deltas, proposals, valid, sizes, config)

    theirs = SimpleNamespace(
        box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)), score_thresh=0.25, nms_thresh=0.4, detections_per_img=12
    )
    expected = RoIHeads.postprocess_detections(
        theirs,  # pyright: ignore[reportArgumentType]
        logits[valid],
        deltas[valid].flatten(1),
        [own[there] for own, there in zip(proposals, valid, strict=True)],
        [(int(h), int(w)) for h, w in sizes],
    )
    for image, (own_boxes, scores, labels) in enumerate(zip(*expected, strict=True)):
        there = found.valid[image]
        assert_close(found.scores[image][there], scores, atol=1e-6, rtol=0)
        assert torch.equal(found.labels[image][there], labels)
        assert_close(found.boxes[image][there], own_boxes, atol=1e-4, rtol=0)


@cases(("random", "ties", "none", "all"), 5)
def test_detections_of_one_box_for_all_classes(kind: str, seed: int) -> None:
    """YOLO's: a threshold, a greedy loop for each class, then the best of the image."""
    rng = random(kind, seed)
    given = torch.stack([boxes("random", rng, 15) for _ in range(2)])
    scores = torch.from_numpy(rng.random((2, 15, 3)).astype(np.float32))
    if kind == "ties":
        scores = (scores * 4).round() / 4
    config = YOLOModel(score_threshold={"none": 1.0, "all": 0.0}.get(kind, 0.3), nms_iou=0.5, detections_per_image=8)

    found = postprocess_boxes(scores, given, torch.tensor([[100, 100], [60, 50]]), config)

    for image, limit in enumerate(([100, 100], [50, 60])):
        cut = torch.minimum(given[image].clamp(min=0), torch.tensor([*limit, *limit]).float())
        usable = (cut[:, 2:] - cut[:, :2] >= 1e-2).all(1)
        rows: list[tuple[float, int]] = []
        for label in range(3):
            order = [i for i in range(15) if usable[i] and scores[image, i, label] > config.score_threshold]
            order.sort(key=lambda i, label=label, image=image: -scores[image, i, label].item())
            rows += [(scores[image, i, label].item(), label + 1) for i in greedy(cut, order, 0.5)]
        rows.sort(key=lambda row: -row[0])
        there = found.valid[image]
        assert found.scores[image][there].tolist() == [score for score, _ in rows[:8]]
        if kind != "ties":
            assert found.labels[image][there].tolist() == [label for _, label in rows[:8]]


@pytest.mark.parametrize("seed", range(6))
def test_detections_do_not_depend_on_the_other_images(seed: int) -> None:
    """Sixteen images of 1,000 pixels and 20 classes: boxes of one group must not be moved so far that they are rounded."""
    rng = random("batch", seed)
    low = rng.uniform(0, 900, (16, 40, 2))
    proposals = torch.from_numpy(np.concatenate([low, low + rng.uniform(4, 20, (16, 40, 2))], -1)).float()
    proposals = proposals[:, :8].repeat(1, 5, 1) + torch.from_numpy(rng.normal(0, 1.5, (16, 40, 4))).float()
    logits = torch.from_numpy(rng.normal(0, 1, (16, 40, 21)).astype(np.float32))
    deltas = torch.zeros(16, 40, 21, 4)
    valid, sizes = torch.ones(16, 40, dtype=torch.bool), torch.full((16, 2), 1000)
    config = HeadConfig(score_threshold=0.1, nms_iou=0.3, detections_per_image=100)

    together = postprocess(logits, deltas, proposals, valid, sizes, config)

    for image in range(16):
        one = slice(image, image + 1)
        alone = postprocess(logits[one], deltas[one], proposals[one], valid[one], sizes[one], config)
        assert together.scores[image][together.valid[image]].tolist() == alone.scores[0][alone.valid[0]].tolist()
