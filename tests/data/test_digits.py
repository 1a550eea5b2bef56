from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from paperbench.data import digits, labelled
from paperbench.data.image_sets import DigitsData


def test_splits_are_complete_apart_and_hold_every_digit() -> None:
    train, test = digits.load("train"), digits.load("test")
    assert (len(train), len(test)) == (1437, 360)
    for part in (train, test):
        assert part.images.shape[1:] == (28, 28)
        assert part.images.dtype == torch.uint8
        assert torch.bincount(part.labels, minlength=10).min() >= len(part) / 14
    rows = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in rows for image in test.images)


def test_ink_is_white_in_the_middle() -> None:
    images = digits.load("test").images
    assert (images[:, :4] == 0).all()
    assert (images[:, :, -4:] == 0).all()
    assert images.max() == 255
    assert 20 < images.float().mean() < 80


def test_pixels_are_the_same_for_ever() -> None:
    """Results were measured on them."""
    train = digits.load("train")
    assert train.labels[:12].tolist() == LABELS
    assert int(train.images.sum()) == TOTAL


LABELS = [1, 2, 3, 4, 6, 7, 8, 9, 1, 2, 3, 4]
TOTAL = 45_316_276


def test_the_file_is_what_scikit_learn_reads() -> None:
    levels, labels = load_digits(return_X_y=True)
    table = digits._table()
    assert (table[:, :-1] == levels).all()
    assert (table[:, -1] == labels).all()


def test_without_that_file_scikit_learn_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    table = digits._table()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert (digits._table() == table).all()


def test_limits() -> None:
    assert len(labelled.load(DigitsData(max_test_images=7), "test")) == 7
    assert labelled.load(DigitsData(), "test").first(0).images.shape == (360, 28, 28)
    with pytest.raises(ValueError, match="split"):
        digits.load("validation")  # type: ignore[arg-type]
