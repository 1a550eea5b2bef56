"""Batches in halves, dustbins, heads, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from paperbench.distill.nets import mlp
from paperbench.distill.specialists.coverage import accuracy, conditional_accuracy, coverage
from paperbench.distill.specialists.nets import (
    as_specialist,
    labels_for,
    scattered,
    softmax_corrected,
    specialist_from,
)
from paperbench.distill.specialists.sampling import HalvesOrder, dustbin_correction

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
    with pytest.raises(ValueError, match="no halves"):
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
