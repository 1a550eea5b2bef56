"""Classes, nets and batches of specialists."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from paperbench.distill.nets import mlp
from paperbench.distill.specialists.evaluation import accuracy, conditional_accuracy, coverage
from paperbench.distill.specialists.model import (
    HalvesOrder,
    as_specialist,
    confusable,
    covariance,
    dustbin_correction,
    labels_for,
    membership,
    scattered,
    softmax_corrected,
    specialist_from,
)

SPECIAL, OTHERS = np.arange(0, 7), np.arange(7, 40)


def test_half_of_every_batch_is_special() -> None:
    order = HalvesOrder(SPECIAL, OTHERS, 10, seed=3)
    for step in range(20):
        indices = order.batch(step).indices
        assert np.isin(indices[:5], SPECIAL).all()
        assert np.isin(indices[5:], OTHERS).all()


def test_both_halves_go_through_their_images_evenly() -> None:
    order = HalvesOrder(SPECIAL, OTHERS, 14, seed=3)
    special = np.concatenate([order.batch(step).indices[:7] for step in range(6)])
    assert (np.bincount(special, minlength=7) == 6).all()
    assert sorted(order.batch(0).epochs[:7].tolist()) == [0] * 7
    assert order.batch(1).epochs[0] == 1


def test_a_batch_follows_from_seed_and_step() -> None:
    one, same, other = (HalvesOrder(SPECIAL, OTHERS, 8, seed=seed) for seed in (1, 1, 2))
    assert (one.batch(9).indices == same.batch(9).indices).all()
    assert any((one.batch(step).indices != other.batch(step).indices).any() for step in range(5))
    with pytest.raises(ValueError, match="batch_size=7 is odd"):
        HalvesOrder(SPECIAL, OTHERS, 7, seed=1)


def test_the_correction_undoes_the_oversampling() -> None:
    # A specialist that learnt nothing but the halves says 1/2; corrected, it says what the data hold.
    logits = torch.zeros(1, 2)
    p = softmax_corrected(logits, dustbin_correction(7, 33))
    torch.testing.assert_close(p, torch.tensor([[7 / 40, 33 / 40]], dtype=torch.float64))
    assert torch.equal(logits, torch.zeros(1, 2))


def test_a_specialist_starts_as_the_generalist() -> None:
    generalist = mlp(inputs=9, classes=6, widths=[5])
    x = torch.rand(4, 9)
    specialist = specialist_from(generalist, (1, 4))
    torch.testing.assert_close(specialist(x)[:, :2], generalist(x)[:, [1, 4]])
    others = generalist(x)[:, [0, 2, 3, 5]]
    torch.testing.assert_close(specialist(x)[:, 2], others.mean(1) + math.log(4))
    with torch.no_grad():
        specialist.trunk[0].weight.zero_()  # type: ignore[union-attr]
    assert float(generalist.trunk[0].weight.detach().abs().sum()) > 0  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="no dustbin"):
        specialist_from(generalist, range(6))


def test_numbers_of_classes_and_the_way_back() -> None:
    assert labels_for((1, 4), 6).tolist() == [2, 0, 2, 2, 1, 2]
    logits = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(logits, 1)
    own = torch.softmax(as_specialist(logits, (1, 4), 0.0), 1)
    torch.testing.assert_close(own.sum(1), torch.ones(3, dtype=torch.float64))
    spread = scattered(own, (1, 4), 6)
    torch.testing.assert_close(spread[:, [1, 4]], p[:, [1, 4]])
    torch.testing.assert_close(spread[:, 6], p[:, [0, 2, 3, 5]].sum(1))
    assert float(spread[:, [0, 2, 3, 5]].abs().sum()) == 0


def test_what_the_generalist_tells_a_specialist_is_its_answer_once_corrected() -> None:
    logits = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    correction = dustbin_correction(200, 400)
    corrected = softmax_corrected(as_specialist(logits, (1, 4), correction), correction)
    torch.testing.assert_close(corrected, torch.softmax(as_specialist(logits, (1, 4), 0.0), 1))


LABELS = torch.tensor([0, 0, 1, 2, 2])
BEFORE = torch.eye(3)[torch.tensor([0, 1, 1, 0, 0])]
AFTER = torch.eye(3)[torch.tensor([0, 0, 0, 2, 0])]
KNOWN = torch.tensor([[True, True, False], [True, False, False]])


def test_coverage_counts_by_specialists_of_the_true_class() -> None:
    assert coverage(BEFORE, AFTER, LABELS, KNOWN) == {
        "coverage/0/examples": 2.0, "coverage/0/more_correct": 1.0,
        "coverage/1/examples": 1.0, "coverage/1/more_correct": -1.0, "coverage/1/relative_gain": -100.0,
        "coverage/2/examples": 2.0, "coverage/2/more_correct": 1.0, "coverage/2/relative_gain": 100.0,
    }  # fmt: skip


def test_ten_and_more_share_a_row() -> None:
    known = torch.ones(12, 3, dtype=torch.bool)
    table = coverage(BEFORE, AFTER, LABELS, known)
    assert table["coverage/10/examples"] == 5
    assert {name.split("/")[1] for name in table} == {"10"}


def test_conditional_accuracy_restricts_answers_and_images_to_each_set() -> None:
    assert accuracy(BEFORE, LABELS) == pytest.approx(40)
    scores = torch.tensor([[0.1, 0.2, 0.9], [0.3, 0.2, 0.5], [0.0, 0.1, 0.9], [1.0, 0, 0], [1.0, 0, 0]])
    # First set: images 0 (says 1, wrong), 1 (says 0, right), 2 (says 1, right). Second: images 0 and 1, both right.
    assert conditional_accuracy(scores, LABELS, KNOWN) == pytest.approx(100 * 4 / 5)
    assert math.isnan(conditional_accuracy(scores, LABELS, torch.zeros(1, 3, dtype=torch.bool)))


# --- classes ----------------------------------------------------------------------------------------------------------


GROUPS = [(0, 1, 2), (3, 4, 5), (6, 7, 8, 9)]


def _predictions() -> torch.Tensor:
    """Images of ten classes; each is also given some probability for those of its group."""
    stream = torch.Generator().manual_seed(0)
    logits = 0.3 * torch.randn(500, 10, generator=stream)
    for number in range(500):
        group = GROUPS[number % 3]
        logits[number, list(group)] += 3
        logits[number, group[number % len(group)]] += 1
    return torch.softmax(logits, 1)


def test_covariance_is_that_of_the_columns() -> None:
    p = _predictions()
    torch.testing.assert_close(covariance(p), torch.cov(p.double().T))


def test_classes_that_are_predicted_together_form_a_set() -> None:
    assert confusable(covariance(_predictions()), count=3, seed=0) == GROUPS


def test_no_label_and_no_order_of_images_matters() -> None:
    p = _predictions()
    assert confusable(covariance(p.flip(0)), count=3, seed=4) == GROUPS


def test_sets_of_one_size_overlap() -> None:
    sets = confusable(covariance(_predictions()), count=3, size=4, seed=0)
    assert [len(members) for members in sets] == [4, 4, 4]
    assert sum(len(members) for members in sets) > len({number for members in sets for number in members})
    for group in GROUPS:
        assert any(set(group) <= set(members) for members in sets)


def test_a_cluster_of_one_class_gives_no_set() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1.0, 50.0], dtype=torch.float64))
    assert confusable(matrix, count=2, seed=0) == [(0, 1)]


def test_the_same_seed_gives_the_same_sets() -> None:
    matrix = covariance(torch.softmax(torch.randn(200, 12, generator=torch.Generator().manual_seed(1)), 1))
    assert confusable(matrix, count=4, size=3, seed=7) == confusable(matrix, count=4, size=3, seed=7)


@pytest.mark.parametrize(
    ("count", "size", "message"), [(11, 0, "11 clusters of 10"), (2, 10, "sets of 10"), (2, 1, "sets of 1")]
)
def test_impossible_numbers(count: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusable(torch.eye(10, dtype=torch.float64), count=count, size=size, seed=0)


def test_membership() -> None:
    assert membership([(0, 2), (1,)], 4).tolist() == [[True, False, True, False], [False, True, False, False]]
