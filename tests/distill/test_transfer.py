"""The transfer set of a student."""

from __future__ import annotations

import pytest
import torch

from paperbench.distill.config import TransferConfig, ValidationConfig
from paperbench.distill.transfer import selected_classes, split_training_set
from paperbench.errors import ConfigError

CLASSES = tuple("0123456789")
LABELS = torch.arange(1000) % 10
NONE = ValidationConfig()


def test_by_default_it_sees_everything() -> None:
    division = split_training_set(LABELS, CLASSES, TransferConfig(), NONE)
    assert division.transfer.tolist() == division.rest.tolist() == list(range(1000))
    assert len(division.validation) == 0


def test_omitted_classes_are_not_seen() -> None:
    seen = split_training_set(LABELS, CLASSES, TransferConfig(omit=("3", "5")), NONE).transfer
    assert set(LABELS[seen].tolist()) == {0, 1, 2, 4, 6, 7, 8, 9}
    assert len(seen) == 800


def test_only_these_classes_are_seen() -> None:
    seen = split_training_set(LABELS, CLASSES, TransferConfig(only=("7", "8")), NONE).transfer
    assert set(LABELS[seen].tolist()) == {7, 8}
    assert len(seen) == 200


def test_a_fraction_takes_as_many_of_each_class() -> None:
    seen = split_training_set(LABELS, CLASSES, TransferConfig(fraction=0.03), NONE).transfer
    assert torch.bincount(LABELS[seen]).tolist() == [3] * 10
    again = split_training_set(LABELS, CLASSES, TransferConfig(fraction=0.03), NONE).transfer
    other = split_training_set(LABELS, CLASSES, TransferConfig(fraction=0.03, seed=1), NONE).transfer
    assert torch.equal(seen, again)
    assert not torch.equal(seen, other)


def test_no_class_disappears_from_a_small_fraction() -> None:
    seen = split_training_set(LABELS, CLASSES, TransferConfig(fraction=0.001), NONE).transfer
    assert torch.bincount(LABELS[seen], minlength=10).tolist() == [1] * 10


def test_validation_images_are_held_back_from_students_and_hold_every_class() -> None:
    division = split_training_set(
        LABELS, CLASSES, TransferConfig(omit=("3",), fraction=0.5), ValidationConfig(fraction=0.1)
    )
    held, seen = set(division.validation.tolist()), set(division.transfer.tolist())
    assert not held & seen
    assert torch.bincount(LABELS[division.validation]).tolist() == [10] * 10
    assert held | set(division.rest.tolist()) == set(range(1000))
    assert torch.bincount(LABELS[division.transfer], minlength=10).tolist() == [45, 45, 45, 0, 45, 45, 45, 45, 45, 45]


def test_the_choice_does_not_depend_on_other_keys() -> None:
    plain = split_training_set(LABELS, CLASSES, TransferConfig(), ValidationConfig(fraction=0.1)).validation
    omitted = split_training_set(
        LABELS, CLASSES, TransferConfig(omit=("1",)), ValidationConfig(fraction=0.1)
    ).validation
    assert torch.equal(plain, omitted)


def test_each_seed_moves_its_own_part_alone() -> None:
    def split(transfer: int, validation: int) -> tuple[list[int], list[int]]:
        division = split_training_set(
            LABELS,
            CLASSES,
            TransferConfig(fraction=0.5, seed=transfer),
            ValidationConfig(fraction=0.1, seed=validation),
        )
        return division.transfer.tolist(), division.validation.tolist()

    assert split(1, 0)[1] == split(0, 0)[1] != split(0, 1)[1]
    assert split(1, 0)[0] != split(0, 0)[0]


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        (TransferConfig(omit=("3",), only=("7",)), "give one of them"),
        (TransferConfig(omit=("33",)), "transfer.omit: no class 33"),
        (TransferConfig(only=("a", "b")), "transfer.only: no class b"),
        (TransferConfig(omit=CLASSES), "names every class; the student would see no image"),
        (TransferConfig(only=CLASSES), "names every class; the student would see everything; leave it out"),
    ],
)
def test_impossible_choices_are_named(transfer: TransferConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        selected_classes(transfer, CLASSES)


def test_a_class_without_images_leaves_nothing() -> None:
    with pytest.raises(ConfigError, match="no training image is left for the student"):
        split_training_set(LABELS % 5, CLASSES, TransferConfig(only=("9",)), NONE)
