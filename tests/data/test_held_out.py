"""Shares of images that are held out for the test."""

from __future__ import annotations

import pytest

from paperbench.data.held_out import Part
from paperbench.errors import DataError

NAMES = [f"{number}.jpg" for number in range(50)]


def held(names: list[str], fraction: float = 0.2, seed: int = 0) -> set[str]:
    own = Part(fraction=fraction, seed=seed, test=True).of(names, "x")
    return {name for name, inside in zip(names, own, strict=True) if inside}


@pytest.mark.parametrize(("fraction", "count"), [(0.2, 10), (0.001, 1), (0.999, 49)])
def test_the_share_and_at_least_one_image_on_either_side(fraction: float, count: int) -> None:
    assert len(held(NAMES, fraction)) == count
    rest = Part(fraction=fraction, test=False).of(NAMES, "x")
    assert {name for name, inside in zip(NAMES, rest, strict=True) if inside} == set(NAMES) - held(NAMES, fraction)


def test_the_order_of_the_files_changes_nothing_and_the_seed_does() -> None:
    assert held(NAMES[::-1]) == held(NAMES)
    assert held(NAMES, seed=1) != held(NAMES)


def test_an_image_is_not_both() -> None:
    with pytest.raises(DataError, match=r"labels\.json: has one image"):
        Part(fraction=0.2, test=True).of(["a"], "labels.json")
