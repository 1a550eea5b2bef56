"""The file of proposals: what goes in comes out, and what cannot be right is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperbench.data import shapes
from paperbench.detection.proposals.sets import ProposalSet, read
from paperbench.errors import DataError


def some() -> ProposalSet:
    """Two boxes in the first image, none in the second."""
    return ProposalSet(
        images=("a", "b"),
        sizes=np.array([[40, 60], [30, 20]]),
        boxes=[np.array([[0, 0, 60, 40], [1.5, 2, 10, 12]], np.float32), np.zeros((0, 4), np.float32)],
        scores=[np.array([2, 1], np.float32), np.zeros(0, np.float32)],
        method="by hand",
        settings={"step": 3},
        dataset="made",
        split="test",
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    some().write(tmp_path / "deep" / "p.npz")
    found = read(tmp_path / "deep" / "p.npz")
    assert (found.images, found.method, found.settings, found.dataset, found.split) == (
        ("a", "b"), "by hand", {"step": 3}, "made", "test",
    )  # fmt: skip
    assert found.sizes.tolist() == [[40, 60], [30, 20]]
    for boxes, scores, expected in zip(found.boxes, found.scores, some().boxes, strict=True):
        assert boxes.tolist() == expected.tolist()
        assert len(scores) == len(boxes)
    assert [len(boxes) for boxes in found.best(1).boxes] == [1, 0]
    assert found.best(0) is found


def test_an_empty_set_is_a_set(tmp_path: Path) -> None:
    empty = ProposalSet(images=(), sizes=np.zeros((0, 2), np.int64), boxes=[], scores=[], method="none")
    empty.write(tmp_path / "p.npz")
    assert len(read(tmp_path / "p.npz")) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"boxes": None}, "no array 'boxes'"),
        ({"scores": np.zeros((2, 1), np.float32)}, "'scores' has 2 dimensions"),
        ({"boxes": np.array([["a"] * 4] * 2)}, "'boxes' holds values of type <U1"),
        ({"sizes": np.ones((2, 2)) * np.nan}, "'sizes' holds values of type float64"),
        ({"images": np.array([1, 2])}, "'images' holds values of type int64"),
        ({"about": np.array("{")}, "no JSON"),
        ({"about": np.array(json.dumps({"format": 9}))}, "no format 1"),
        ({"scores": np.zeros(3, np.float32)}, "beside 3 scores"),
        ({"offsets": np.array([0, 2])}, "beside 2 offsets"),
        ({"offsets": np.array([0, 3, 2])}, "do not cut 2 boxes"),
        ({"images": np.array(["a", "a"])}, "image a stands in it twice"),
        ({"boxes": np.array([[0, 0, 61, 40], [1, 2, 10, 12]], np.float32)}, "of image a is not inside the image"),
        ({"boxes": np.array([[0, 0, 0, 40], [1, 2, 10, 12]], np.float32)}, "or empty"),
        ({"scores": np.array([1, 2], np.float32)}, "scores of image a do not fall"),
        ({"scores": np.array([1, np.nan], np.float32)}, "not inside"),
    ],
)
def test_what_cannot_be_right_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    file = tmp_path / "p.npz"
    some().write(file)
    with np.load(file) as archive:
        arrays = {**archive, **changes}
    np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(DataError, match=said) as error:
        read(file)
    assert str(file) in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.npz")
    (tmp_path / "p.npz").write_text("text")
    with pytest.raises(DataError, match="cannot be read as proposals"):
        read(tmp_path / "p.npz")


def test_sets_follow_the_order_of_a_data_set() -> None:
    dataset = shapes.read(split="test", images=3, size=32, data_seed=0, max_objects=2, empty=0.0)
    names = [str(record.image_id) for record in dataset.records]
    boxes = [np.array([[0, 0, 8 + row, 9]], np.float32) for row in range(3)]
    given = ProposalSet(
        images=tuple(reversed(names)),
        sizes=np.full((3, 2), 32),
        boxes=boxes[::-1],
        scores=[np.ones(1, np.float32)] * 3,
        method="by hand",
    )
    assert [found[0, 2] for found in given.of(dataset).boxes] == [8, 9, 10]

    fewer = ProposalSet(**{**vars(given), "images": ("x", *given.images[1:])})
    with pytest.raises(DataError, match=f"file.npz: no proposals for 1 of the 3 images.*{names[2]}"):
        fewer.of(dataset, source="file.npz")
    swapped = ProposalSet(**{**vars(given), "dataset": "shapes", "split": "train"})
    with pytest.raises(DataError, match="its proposals are for shapes train, not for shapes test"):
        swapped.of(dataset)
    other = ProposalSet(**{**vars(given), "sizes": np.full((3, 2), 64)})
    with pytest.raises(DataError, match="32 x 32 pixels, its proposals are for 64 x 64"):
        other.of(dataset)
