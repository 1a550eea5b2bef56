"""The bias of omitted classes: found exactly."""

from __future__ import annotations

import pytest
import torch

from paperbench.distill.evaluation import add_bias, best_bias, errors


def _case(seed: int, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (count,), generator=stream)
    logits = torch.randn(count, 5, generator=stream) + 2 * torch.nn.functional.one_hot(labels, 5)
    logits[:, 3] -= 2.5  # as of a class that was never seen
    return logits, labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [(3,), (1, 3), (0, 1, 2, 4)])
def test_no_other_bias_leaves_fewer_errors(seed: int, classes: tuple[int, ...]) -> None:
    logits, labels = _case(seed)
    found = best_bias(logits, labels, classes)
    counts = [errors(add_bias(logits, classes, float(b)), labels) for b in torch.linspace(-9, 9, 3601)]
    assert found.errors == errors(add_bias(logits, classes, found.bias), labels)
    assert found.errors <= min(counts)
    assert found.errors <= errors(logits, labels)


def test_a_class_that_was_held_down_is_lifted_by_as_much() -> None:
    labels = torch.arange(40) % 4
    logits = 4.0 * torch.nn.functional.one_hot(labels, 4).float()
    logits[:, 2] -= 6
    found = best_bias(logits, labels, [2])
    # A 2 is told from others by a bias above 2, and nothing else becomes a 2 below 10: the middle of the range.
    assert found.errors == 0
    assert found.bias == pytest.approx(6.0)


def test_the_bias_of_the_only_classes_seen_is_lowered() -> None:
    labels = torch.arange(40) % 4
    logits = 4.0 * torch.nn.functional.one_hot(labels, 4).float()
    logits[:, [0, 1]] += 7
    assert best_bias(logits, labels, [0, 1]).bias == pytest.approx(-7.0)


def test_equal_margins_are_one_step() -> None:
    logits = torch.zeros(6, 2)
    found = best_bias(logits, torch.tensor([0, 0, 0, 0, 1, 1]), [1])
    assert found.errors == 2
    assert found.bias < 0


def test_all_or_none_of_the_classes_cannot_be_corrected() -> None:
    logits, labels = _case(0)
    for classes in ((), (0, 1, 2, 3, 4)):
        with pytest.raises(ValueError, match="some, and not all"):
            best_bias(logits, labels, classes)
