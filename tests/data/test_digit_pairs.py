"""Pairs of digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from paperbench.data import digit_pairs, digits, mnist
from paperbench.data.image_sets import ImageSet


def _load(split: str = "train", count: int = 300, seed: int = 0) -> ImageSet:
    return digit_pairs.load(split, source="digits", count=count, seed=seed)  # type: ignore[arg-type]


def test_forty_five_classes_of_two_different_digits() -> None:
    found = _load(count=2000)
    assert len(found.classes) == 45
    assert found.classes[0] == "01"
    assert found.classes[-1] == "89"
    assert all(low < high for low, high in found.classes)
    assert found.images.shape == (2000, 28, 36)
    counts = torch.bincount(found.labels, minlength=45)
    assert counts.min() > 20
    assert counts.max() < 75


def test_an_image_is_two_digits_of_its_class_in_either_order() -> None:
    found, single = _load(count=60), digits.load("train")
    shift, side = digit_pairs.SHIFT, 28
    orders = set()
    for image, label in zip(found.images, found.labels.tolist(), strict=True):
        low, high = (int(digit) for digit in found.classes[label])
        left, right = image[:, :shift], image[:, side:]  # columns that belong to one digit alone
        on_left = (single.images[:, :, :shift] == left).flatten(1).all(1)
        on_right = (single.images[:, :, -shift:] == right).flatten(1).all(1)
        first = set(single.labels[on_left].tolist()) & {low, high}
        second = set(single.labels[on_right].tolist()) & {low, high}
        assert first
        assert second
        whole = [
            (a, b)
            for a in single.images[on_left & torch.isin(single.labels, torch.tensor([low, high]))][:40]
            for b in single.images[on_right & torch.isin(single.labels, torch.tensor([low, high]))][:40]
            if torch.equal(_joined(a, b), image)
        ]
        orders.add(tuple(sorted(first)))
        assert whole or on_left.sum() > 40 or on_right.sum() > 40
    assert len(orders) > 1


def _joined(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    joined = torch.zeros(28, 36, dtype=torch.uint8)
    joined[:, :28] = left
    joined[:, 8:] = torch.maximum(joined[:, 8:], right)
    return joined


@pytest.mark.parametrize("source", ["digits", "mnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_pairs_of_a_split_are_of_its_digits(monkeypatch: pytest.MonkeyPatch, source: Any, split: Any) -> None:
    ink = {"train": 10, "test": 20}

    def of_ink(asked: str) -> ImageSet:
        images = torch.full((30, 28, 28), ink[asked], dtype=torch.uint8)
        return ImageSet(images=images, labels=torch.arange(30) % 10, classes=digits.CLASSES, name=asked)

    monkeypatch.setattr(digits, "load", of_ink)
    monkeypatch.setattr(mnist, "load", lambda root, asked: of_ink(asked))
    found = digit_pairs.load(split, source=source, count=20, seed=0)
    assert found.images.unique().tolist() == [ink[split]]


def test_a_pair_follows_from_seed_split_and_position() -> None:
    few, many = _load(count=50), _load(count=300)
    assert torch.equal(few.images, many.images[:50])
    assert torch.equal(few.labels, many.labels[:50])
    assert not torch.equal(_load(seed=1).labels, many.labels)
    assert not torch.equal(_load("test").labels, many.labels)
