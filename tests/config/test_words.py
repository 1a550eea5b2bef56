from __future__ import annotations

import pytest

from paperbench.config.words import counted


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, "images", "0 images"),
        (1, "images", "1 image"),
        (1200, "images", "1,200 images"),
        (1, "boxes", "1 box"),
        (1, "classes", "1 class"),
        (1, "cases", "1 case"),
        (1, "copies", "1 copy"),
        (1, "label files", "1 label file"),
        (1, "masks of two labels", "1 mask of two labels"),
        (1, "images that are in the training split too", "1 image that is in the training split too"),
        (1, "objects without an area, which have their box's", "1 object without an area, which has their box's"),
        (2, "images that are turned", "2 images that are turned"),
    ],
)
def test_a_noun_follows_its_number(count: int, nouns: str, text: str) -> None:
    assert counted(count, nouns) == text
