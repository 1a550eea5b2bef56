"""Assignment and sampling, against torchvision's matchers and samplers, and against the rules one reference at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher, SSDMatcher

from paperbench.detection.matching import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    best_pairs,
    hardest_negatives,
    match,
    sample,
    sample_hardest,
)
from tests.peers.cases import cases, random
from tests.peers.detection.inputs import boxes, plain_iou

OVERLAPS = (
    "continuous",
    "tenths",
    "exact-thresholds",
    "sparse",
    "one-object",
    "many-objects",
    "one-reference",
    "equal",
)
"""`tenths` tie often; `exact-thresholds` are .3, .7 and their float32 neighbours; `sparse` are mostly 0."""


def overlaps(kind: str, rng: np.random.Generator) -> Tensor:
    """Return (G, A) float64."""
    objects = {"one-object": 1, "many-objects": 20}.get(kind, 5)
    references = 1 if kind == "one-reference" else 40
    values = rng.random((objects, references))
    if kind == "tenths":
        values = np.round(values * 10) / 10
    elif kind == "exact-thresholds":
        near = np.array([0.3, 0.7, np.nextafter(0.3, 0), np.nextafter(0.7, 0), np.nextafter(0.3, 1), 0.1, 0.9])
        values = rng.choice(near, values.shape)
    elif kind == "sparse":
        values = values * (rng.random(values.shape) < 0.1)
    elif kind == "equal":
        values = np.full_like(values, rng.choice([0.2, 0.5, 0.8]))
    return torch.from_numpy(values)


def as_labels(matched: Tensor) -> Tensor:
    """Torchvision's matches as labels: a row, or -1 below the lower threshold, or -2 between the two."""
    return torch.where(matched >= 0, POSITIVE, torch.where(matched == -1, NEGATIVE, IGNORED))


@pytest.mark.parametrize("rule", ["best-for-each", "thresholds"])
@cases(OVERLAPS, 6)
def test_anchors(kind: str, seed: int, rule: str) -> None:
    """Section 3.1.2, rules (i) and (ii). In torchvision an object that overlaps nothing claims every anchor: not asked here."""
    iou = overlaps(kind, random(kind + rule, seed))
    if rule == "best-for-each":
        known = torch.ones(1, len(iou), dtype=torch.bool)
        if not (iou > 0).any():
            found = match(iou[None], known, positive=0.7, negative=0.3, best_for_each=True)
            assert (found.labels == NEGATIVE).all()
            return
        iou = iou[iou.amax(1) > 0]

    found = match(
        iou[None],
        torch.ones(1, len(iou), dtype=torch.bool),
        positive=0.7,
        negative=0.3,
        best_for_each=rule == "best-for-each",
    )

    expected = Matcher(0.7, 0.3, allow_low_quality_matches=rule == "best-for-each")(iou)
    labels = as_labels(expected)
    assert torch.equal(found.labels[0], labels)
    positive = labels == POSITIVE
    assert torch.equal(found.matched[0][positive], expected[positive])


def plain_labels(iou: np.ndarray, positive: float, negative: float, low: float, best: bool) -> list[int]:
    """The rules, one anchor at a time."""
    labels = []
    for anchor in range(iou.shape[1]):
        highest = max(iou[:, anchor], default=0.0)
        label = IGNORED
        if low <= highest < negative:
            label = NEGATIVE
        if highest >= positive:
            label = POSITIVE
        if best and any(own[anchor] > 0 and own[anchor] == max(own) for own in iou):
            label = POSITIVE
        labels.append(label)
    return labels


@cases(OVERLAPS, 6)
def test_batches_with_padding_and_anchors_that_are_left_out(kind: str, seed: int) -> None:
    rng = random(kind, seed)
    images = [overlaps(kind, rng) for _ in range(3)]
    valid = torch.from_numpy(rng.random((3, len(images[0]))) < 0.7)
    valid[1] = False
    eligible = torch.from_numpy(rng.random((3, images[0].shape[1])) < 0.8)
    low = float(rng.choice([0.0, 0.1]))

    found = match(
        torch.stack(images), valid, positive=0.7, negative=0.3, negative_low=low, best_for_each=True, eligible=eligible
    )

    for image, iou in enumerate(images):
        own, inside = iou[valid[image]][:, eligible[image]].numpy(), eligible[image]
        assert found.labels[image][inside].tolist() == plain_labels(own, 0.7, 0.3, low, best=True)
        assert (found.labels[image][~inside] == IGNORED).all()
        positive = found.labels[image] == POSITIVE
        rows = torch.nonzero(valid[image])[:, 0]
        if len(rows):
            expected = rows[iou[rows].argmax(0)]
            assert torch.equal(found.matched[image][positive], expected[positive])


@cases(("random", "whole", "same", "touching", "beyond", "tiny", "huge"), 4)
def test_anchors_of_boxes(kind: str, seed: int) -> None:
    """From boxes on: overlaps that tie in float32 and not in float64 would differ."""
    rng = random(kind, seed)
    objects, anchors = boxes(kind, rng, 4), boxes(kind, rng, 30)
    iou = torch.from_numpy(plain_iou(objects, anchors))
    known = iou.amax(1) > 0

    found = match(iou[None], known[None], positive=0.7, negative=0.3, best_for_each=True)

    if known.any():
        assert torch.equal(found.labels[0], as_labels(Matcher(0.7, 0.3, allow_low_quality_matches=True)(iou[known])))
    else:
        assert (found.labels == NEGATIVE).all()


# --- SSD --------------------------------------------------------------------------------------------------------------


@cases(OVERLAPS, 5)
def test_default_boxes(kind: str, seed: int) -> None:
    """Where no two objects want the same box, SSD's bipartite step is torchvision's: each takes its best."""
    iou = overlaps(kind, random(kind, seed))
    first: dict[int, int] = {}
    for row, own in enumerate(iou.argmax(1).tolist()):
        if iou[row, own] > 0:
            first.setdefault(own, row)
    iou = iou[sorted(first.values())]
    if not len(iou):
        apart = torch.zeros(1, 3, 40).double()
        found = match(apart, torch.ones(1, 3, dtype=torch.bool), positive=0.5, negative=0.5, bipartite=True)
        assert (found.labels == NEGATIVE).all()
        return
    if kind in ("tenths", "exact-thresholds", "equal"):  # the first of equal overlaps: leave no doubt which
        iou = iou + torch.rand(iou.shape, generator=torch.Generator().manual_seed(seed)).double() * 1e-9
        iou = iou[(torch.unique(iou.argmax(1)).numel() == len(iou) and slice(None)) or slice(0, 1)]

    found = match(iou[None], torch.ones(1, len(iou), dtype=torch.bool), positive=0.5, negative=0.5, bipartite=True)

    expected = SSDMatcher(0.5)(iou)
    positive = expected >= 0
    assert torch.equal(found.labels[0] == POSITIVE, positive)
    assert torch.equal(found.matched[0][positive], expected[positive])


@cases((*OVERLAPS, "crowd"), 5)
def test_bipartite_pairs(kind: str, seed: int) -> None:
    """The largest overlap of all is paired first, then the largest of the rest."""
    rng = random(kind, seed)
    iou = overlaps("continuous" if kind == "crowd" else kind, rng)
    if kind == "crowd":  # more objects than references
        iou = iou.t()[:, :3].contiguous()

    found = best_pairs(torch.stack([iou, torch.zeros_like(iou)]))

    expected = np.full(iou.shape[1], -1)
    values = iou.numpy()
    pairs = sorted(np.ndindex(*values.shape), key=lambda pair: -values[pair])
    taken: set[int] = set()
    for row, column in pairs:
        if values[row, column] > 0 and row not in taken and expected[column] < 0:
            expected[column] = row
            taken.add(row)
    assert found[0].tolist() == expected.tolist()
    assert (found[1] == -1).all()


@pytest.mark.parametrize("ratio", [3.0, 1.0, 2.5])
@cases(("random", "ties", "no-positives", "all-positive", "few-negatives", "infinite"), 4)
def test_hard_negatives(kind: str, seed: int, ratio: float) -> None:
    rng = random(kind, seed)
    loss = torch.from_numpy(rng.exponential(1.0, (3, 30)).astype(np.float32))
    if kind == "ties":
        loss = (loss * 2).round() / 2
    if kind == "infinite":
        loss[0, 3] = torch.inf
    share = {"no-positives": 0.0, "all-positive": 1.1, "few-negatives": 0.8}.get(kind, 0.15)
    positive = torch.from_numpy(rng.random((3, 30)) < share)

    found = hardest_negatives(loss, positive, ratio)

    for image in range(3):
        wanted = int(np.ceil(ratio * int(positive[image].sum())))
        order = sorted((i for i in range(30) if not positive[image, i]), key=lambda i: -loss[image, i].item())
        assert torch.nonzero(found[image])[:, 0].tolist() == sorted(order[:wanted])


# --- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "fraction"), [(256, 0.5), (16, 0.25), (10, 0.33), (1, 0.5), (8, 1.0), (8, 0.0)])
@cases(("mixed", "few-positives", "few-negatives", "none", "ignored", "positives-alone"), 4)
def test_sampling(kind: str, seed: int, count: int, fraction: float) -> None:
    """As many positives and negatives as torchvision draws, each of its own kind, none twice."""
    rng = random(kind, seed)
    shares = {
        "mixed": (0.3, 0.5), "few-positives": (0.02, 0.9), "few-negatives": (0.9, 0.02), "none": (0.0, 0.0),
        "ignored": (0.05, 0.05), "positives-alone": (0.9, 0.0),
    }[kind]  # fmt: skip
    draw = rng.random((2, 64))
    labels = torch.from_numpy(np.where(draw < shares[0], 1, np.where(draw < sum(shares), 0, -1)))

    found = sample(labels, count=count, positive_fraction=fraction, generator=torch.Generator().manual_seed(seed))

    positive, negative = BalancedPositiveNegativeSampler(count, fraction)(list(labels.float()))
    for image in range(2):
        chosen = found.chosen[image][found.valid[image]]
        assert len(chosen) == len(chosen.unique())
        drawn = labels[image][chosen]
        assert (drawn == POSITIVE).sum() == positive[image].sum()
        assert (drawn == NEGATIVE).sum() == negative[image].sum()
        assert (drawn >= 0).all()
        assert drawn.tolist() == sorted(drawn.tolist(), reverse=True), "objects come first"


def test_sampling_is_uniform() -> None:
    """Every positive and every negative is drawn as often as another: chi-squared within 4 deviations of its mean."""
    labels = torch.tensor([[1] * 6 + [0] * 10 + [-1] * 4])
    generator = torch.Generator().manual_seed(0)
    rounds = 3000
    found = sample(labels.expand(rounds, -1), count=6, positive_fraction=0.5, generator=generator)
    counts = torch.bincount(found.chosen[found.valid], minlength=20).double()
    for part in (counts[:6], counts[6:16]):
        share = rounds * 3 / len(part)
        # Three of n without replacement: the variance of a count is rounds p (1 - p).
        chi = ((part - share).square() / (share * (1 - 3 / len(part)))).sum() * (len(part) - 1) / len(part)
        assert chi < len(part) - 1 + 4 * (2 * (len(part) - 1)) ** 0.5
    assert counts[16:].sum() == 0


@cases(("random", "whole", "same", "touching", "beyond", "one"), 5)
def test_online_hard_examples(kind: str, seed: int) -> None:
    """Section 4.2 of OHEM: sort by loss, suppress what overlaps a worse one by more than .7, take the first."""
    rng = random(kind, seed)
    regions = torch.stack([boxes(kind, rng, 24) for _ in range(2)])
    losses = torch.from_numpy(rng.exponential(1.0, regions.shape[:2]).astype(np.float32))
    valid = torch.from_numpy(rng.random(regions.shape[:2]) < 0.8)

    found = sample_hardest(regions, losses, valid, count=6, nms_iou=0.7)

    for image in range(2):
        iou = plain_iou(regions[image], regions[image])
        expected: list[int] = []
        for region in sorted(torch.nonzero(valid[image])[:, 0].tolist(), key=lambda i: -losses[image, i].item()):
            if len(expected) < 6 and all(iou[region, other] <= 0.7 for other in expected):
                expected.append(region)
        assert found.chosen[image][found.valid[image]].tolist() == expected
