from __future__ import annotations

import torch

from paperbench.detection.matching import match

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
