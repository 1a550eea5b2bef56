"""Each split is read by its own name and cut by its own limit, in every data set of labelled images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from paperbench.data import labelled
from paperbench.data.image_sets import ImageSet


def a_set(split: str) -> ImageSet:
    images = torch.zeros(9, 4, 4, dtype=torch.uint8)
    return ImageSet(images=images, labels=torch.zeros(9, dtype=torch.int64), classes=("a",), name=split)


@pytest.mark.parametrize("source", ["mnist", "digits"])
@pytest.mark.parametrize(("split", "limit"), [("train", 3), ("test", 5)])
def test_a_split_is_its_own(monkeypatch: pytest.MonkeyPatch, source: str, split: Any, limit: int) -> None:
    asked: list[Any] = []

    def load(*given: Any) -> ImageSet:
        asked.append(given)
        return a_set(given[-1])

    monkeypatch.setattr(getattr(labelled, source), "load", load)
    kind = labelled.MnistData if source == "mnist" else labelled.DigitsData
    config: Any = kind(max_train_images=3, max_test_images=5)
    found = labelled.load(config, split)
    assert (len(found), found.name, asked[0][-1]) == (limit, split, split)
    assert len(labelled.load(kind(), split)) == 9
