"""Confusable classes."""

from __future__ import annotations

import pytest
import torch

from paperbench.distill.specialists.clusters import confusable, covariance, membership

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
