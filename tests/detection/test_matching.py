from __future__ import annotations

import numpy as np
import pytest
import torch

from paperbench.config.compose import compose
from paperbench.detection.anchors import DefaultBoxes
from paperbench.detection.boxes import exact_iou
from paperbench.detection.detectors.faster_rcnn import FasterRCNN, build_faster_rcnn
from paperbench.detection.losses import fast_rcnn_loss, loss_of_each_region
from paperbench.detection.matching import NEGATIVE, POSITIVE, best_pairs, match, sample, sample_hardest
from tests.detection.detectors.test_faster_rcnn import batch

OVERLAPS = torch.tensor([[[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]]])
ALL = torch.ones(1, 3, dtype=torch.bool)


def test_the_published_example() -> None:
    found = match(OVERLAPS, ALL, positive=0.7, negative=0.3, best_for_each=True)
    assert found.matched.tolist() == [[1, 1, 2, 0]]
    assert found.labels.tolist() == [[-1, 1, 0, 1]]


def test_without_the_best_for_each_object_only_the_threshold_counts() -> None:
    found = match(OVERLAPS, ALL, positive=0.7, negative=0.3)
    assert found.labels.tolist() == [[-1, -1, 0, -1]]


def test_thresholds_are_inclusive_above_and_exclusive_below() -> None:
    overlaps = torch.tensor([[[0.7, 0.3, 0.2999]]])
    found = match(overlaps, torch.ones(1, 1, dtype=torch.bool), positive=0.7, negative=0.3)
    assert found.labels.tolist() == [[1, -1, 0]]


def test_all_ties_for_an_object_become_positive() -> None:
    overlaps = torch.tensor([[[0.5, 0.5, 0.1]]])
    found = match(overlaps, torch.ones(1, 1, dtype=torch.bool), positive=0.7, negative=0.3, best_for_each=True)
    assert found.labels.tolist() == [[1, 1, 0]]


def test_an_object_that_overlaps_nothing_claims_nothing() -> None:
    found = match(
        torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), positive=0.7, negative=0.3, best_for_each=True
    )
    assert found.labels.tolist() == [[0, 0, 0, 0]]


def test_padding_is_no_object_and_an_empty_image_has_only_negatives() -> None:
    overlaps = torch.full((1, 2, 3), 0.9)
    found = match(overlaps, torch.zeros(1, 2, dtype=torch.bool), positive=0.7, negative=0.3, best_for_each=True)
    assert found.labels.tolist() == [[0, 0, 0]]


def test_ineligible_references_are_ignored_and_claim_no_object() -> None:
    eligible = torch.tensor([[False, True, True]])
    overlaps = torch.tensor([[[0.9, 0.4, 0.1]]])
    found = match(
        overlaps, torch.ones(1, 1, dtype=torch.bool), positive=0.7, negative=0.3, best_for_each=True, eligible=eligible
    )
    assert found.labels.tolist() == [[-1, 1, 0]]


def test_the_lower_bound_of_the_background() -> None:
    overlaps = torch.tensor([[[0.05, 0.1, 0.4, 0.5]]])
    found = match(overlaps, torch.ones(1, 1, dtype=torch.bool), positive=0.5, negative=0.5, negative_low=0.1)
    assert found.labels.tolist() == [[-1, 0, 0, 1]]


def test_images_of_a_batch_do_not_meet() -> None:
    both = match(torch.cat([OVERLAPS, 1 - OVERLAPS]), ALL.expand(2, 3), positive=0.7, negative=0.3, best_for_each=True)
    alone = match(1 - OVERLAPS, ALL, positive=0.7, negative=0.3, best_for_each=True)
    assert torch.equal(both.labels[1:], alone.labels)


def labels_of(positives: int, negatives: int, ignored: int) -> torch.Tensor:
    labels = torch.tensor([1] * positives + [0] * negatives + [-1] * ignored)
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(labels: torch.Tensor, count: int, fraction: float, seed: int = 0) -> tuple[int, int, int]:
    found = sample(labels[None], count=count, positive_fraction=fraction, generator=generator(seed))
    index = found.chosen[found.valid]
    assert len(index.unique()) == len(index)
    picked = labels[index]
    return int((picked == 1).sum()), int((picked == 0).sum()), int((picked == -1).sum())


def test_positives_are_bounded_and_negatives_fill_up() -> None:
    assert drawn(labels_of(300, 2000, 100), 256, 0.5) == (128, 128, 0)
    assert drawn(labels_of(20, 2000, 100), 256, 0.5) == (20, 236, 0)
    assert drawn(labels_of(0, 2000, 100), 256, 0.5) == (0, 256, 0)


def test_too_few_to_fill_the_minibatch() -> None:
    assert drawn(labels_of(300, 10, 0), 256, 0.5) == (128, 10, 0)
    assert drawn(labels_of(3, 4, 50), 256, 0.5) == (3, 4, 0)
    assert drawn(labels_of(0, 0, 8), 4, 0.5) == (0, 0, 0)


def test_images_are_sampled_independently_of_each_other() -> None:
    labels = torch.stack([labels_of(50, 400, 50), labels_of(2, 498, 0)])
    found = sample(labels, count=64, positive_fraction=0.25, generator=generator(1))
    picked = labels.gather(1, found.chosen)
    assert (picked == 1).sum(1).tolist() == [16, 2]
    assert found.valid.all()


def test_equal_generators_draw_equal_minibatches_and_others_do_not() -> None:
    labels = labels_of(100, 900, 0)[None]
    first, again, other = (
        sample(labels, count=64, positive_fraction=0.5, generator=generator(seed)).chosen for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_positive_is_as_likely_as_any_other() -> None:
    labels = labels_of(8, 100, 0)
    counts = torch.zeros(len(labels))
    for seed in range(400):
        found = sample(labels[None], count=8, positive_fraction=0.5, generator=generator(seed))
        counts[found.chosen[0]] += 1
    share = counts[labels == 1] / 400
    assert share.min() > 0.38
    assert share.max() < 0.62


@pytest.fixture
def ohem() -> FasterRCNN:
    torch.manual_seed(0)
    config = compose("faster-rcnn", ["scale=smoke", "model.head.ohem=true"]).config
    return build_faster_rcnn(config.model, classes=["cat", "dog"]).train()


def test_the_largest_losses_are_taken_and_twins_count_once() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60], [80, 80, 90, 90], [0, 0, 0, 0]]])
    losses = torch.tensor([[2.0, 3, 1, 0.5, 9]])
    valid = torch.tensor([[True, True, True, True, False]])
    found = sample_hardest(boxes, losses, valid, count=2, nms_iou=0.7)
    assert found.chosen.tolist() == [[1, 2]]  # 0 is the twin of 1, which costs more; the last is not there
    assert found.valid.all()
    everything = sample_hardest(boxes, losses, valid, count=5, nms_iou=1.0)
    assert everything.chosen[everything.valid].tolist() == [1, 0, 2, 3]


def test_losses_of_single_regions_add_up_to_the_loss_of_the_minibatch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, deltas, targets = (torch.randn(shape, generator=generator) for shape in ((6, 3), (6, 3, 4), (6, 4)))
    labels, valid = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([True, True, True, True, True, False])
    nll, distance = loss_of_each_region(logits, deltas, targets, labels, valid, sigma=1.0)
    classification, box = fast_rcnn_loss(logits, deltas, targets, labels, valid, sigma=1.0)
    assert nll[5] == distance[5] == 0
    assert distance[0] == distance[3] == 0  # background has no box
    torch.testing.assert_close(nll.sum() / 5, classification)
    torch.testing.assert_close(distance.sum() / 5, box)


def test_the_regions_that_are_trained_on_cost_more_than_random_ones(ohem: FasterRCNN) -> None:
    images = batch()
    hard = ohem(images, torch.Generator().manual_seed(0))
    ohem.head_config.ohem = False
    drawn = [ohem(images, torch.Generator().manual_seed(seed)) for seed in range(5)]
    cost = [float((losses["loss_classification"] + losses["loss_box"]).detach()) for losses in drawn]
    assert float((hard["loss_classification"] + hard["loss_box"]).detach()) > sum(cost) / len(cost)


def test_the_pass_that_only_looks_leaves_statistics_alone_and_every_weight_its_gradient(ohem: FasterRCNN) -> None:
    images = batch()
    with torch.autocast("cpu", torch.bfloat16):
        features = ohem.extract(images)
        before = {name: value.clone() for name, value in ohem.head.named_buffers()}
        logits, deltas, anchors = ohem.score_anchors(features)
        regions = ohem.hard_regions(images, features, ohem.regions_of_interest(images, (logits, deltas), anchors))
        assert all(torch.equal(value, before[name]) for name, value in ohem.head.named_buffers())
        assert ohem.training
        losses = ohem.region_losses(images, features, regions)
    # Weights cast without a gradient must not come out of autocast's cache.
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    for name, parameter in [*ohem.head.named_parameters(), *ohem.predictor.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


# --- ties, and a reference of one's own -------------------------------------------------------------------------------


def test_overlaps_that_differ_by_rounding_are_ties() -> None:
    best = 0.6
    overlaps = torch.tensor([[[best, best * (1 - 2e-6), best * (1 - 5e-5), 0.1]]], dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.bool)
    for kind in (torch.float64, torch.float32):
        found = match(overlaps.to(kind), one, positive=0.7, negative=0.3, best_for_each=True)
        assert found.labels.tolist() == [[1, 1, -1, 0]]


def paired(overlaps: np.ndarray, threshold: float) -> list[int]:
    """SSD's matching as its code does it: the object of each box, -1 for none. overlaps (G, A)."""
    owner = [-1] * overlaps.shape[1]
    objects = set(range(len(overlaps)))
    while objects:
        free = [box for box, own in enumerate(owner) if own < 0]
        pairs = [(overlaps[own, box], -own, -box) for own in objects for box in free if overlaps[own, box] > 0]
        if not pairs:
            break
        _, own, box = max(pairs)
        owner[-box] = -own
        objects.remove(-own)
    for box in range(overlaps.shape[1]):
        if owner[box] < 0 and overlaps[:, box].max() >= threshold:
            owner[box] = int(overlaps[:, box].argmax())
    return owner


def crowd(rng: np.random.Generator, *, together: float) -> torch.Tensor:
    """Twelve boxes (1, 12, 4) within `together` pixels of a place in an image of 160."""
    centre = rng.uniform(50, 110, 2) + rng.uniform(-together, together, (12, 2))
    half = rng.uniform(6, 24, (12, 2))
    return torch.from_numpy(np.concatenate([centre - half, centre + half], 1).astype(np.float32))[None]


@pytest.mark.parametrize("together", [4.0, 12.0, 40.0])
def test_every_object_of_a_crowd_gets_a_box_of_its_own(together: float) -> None:
    rng = np.random.default_rng(0)
    boxes = DefaultBoxes(side=160, sizes=(20.0, 36.0, 60.0), ratios=((2.0,), (2.0,)))
    default = boxes([(20, 20), (10, 10)], torch.device("cpu"))
    crowds = torch.cat([crowd(rng, together=together) for _ in range(12)])
    overlaps = exact_iou(crowds, default[None])
    found = match(overlaps, torch.ones(12, 12, dtype=torch.bool), positive=0.5, negative=0.5, bipartite=True)
    owners = torch.where(found.labels == POSITIVE, found.matched, -1)
    for own, expected in zip(owners, overlaps.numpy(), strict=True):
        assert own.tolist() == paired(expected, 0.5)
        assert set(range(12)) <= set(own.tolist())
    assert set(found.labels.unique().tolist()) == {NEGATIVE, POSITIVE}


def test_pairs_are_random_overlaps_best_matching() -> None:
    """Also with more objects than boxes, ties, and objects that overlap nothing or are padding."""
    rng = np.random.default_rng(1)
    for objects, boxes in ((1, 1), (3, 2), (5, 9), (8, 8)):
        overlaps = rng.uniform(0, 1, (20, objects, boxes)).round(1) * (rng.uniform(0, 1, (20, objects, boxes)) < 0.6)
        real = rng.uniform(0, 1, (20, objects)) < 0.8
        found = best_pairs(torch.from_numpy(overlaps * real[..., None]))
        for own, expected in zip(found.tolist(), overlaps * real[..., None], strict=True):
            assert own == paired(expected, 2.0)
        whole = match(torch.from_numpy(overlaps), torch.from_numpy(real), positive=0.5, negative=0.5, bipartite=True)
        assert torch.where(whole.labels == POSITIVE, whole.matched, -1).tolist() == [
            paired(expected, 0.5) for expected in overlaps * real[..., None]
        ]
