from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from paperbench.data import svhn
from paperbench.data.image_sets import NONE, SvhnData
from paperbench.errors import DataError
from paperbench.stn import data as stn_data

Boxes = Sequence[tuple[int, int, int, int, int]]
"""Label, left, top, width, height of each digit."""


def write_svhn(root: Path, houses: Sequence[Boxes], *, split: str = "train", size: tuple[int, int] = (60, 40)) -> Path:
    """A split as the archive unpacks: PNG files and `digitStruct.mat`, which refers to every name and every number."""
    folder = root / "svhn" / split
    folder.mkdir(parents=True)
    with h5py.File(folder / "digitStruct.mat", "w") as file:
        names, boxes = [], []
        for number, house in enumerate(houses, start=1):
            name = f"{number}.png"
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            for label, left, top, width, height in house:
                pixels[max(0, top) : top + height, max(0, left) : left + width] = 25 * label
            Image.fromarray(pixels).save(folder / name)
            text = file.create_dataset(f"#refs#/n{number}", data=np.array([[ord(c)] for c in name], np.uint16))
            group = file.create_group(f"#refs#/b{number}")
            for place, field in enumerate(("label", "left", "top", "width", "height")):
                values = [float(digit[place]) for digit in house]
                if len(values) == 1:
                    group.create_dataset(field, data=np.array([values]))
                else:
                    parts = [
                        file.create_dataset(f"#refs#/v{number}{field}{k}", data=np.array([[value]]))
                        for k, value in enumerate(values)
                    ]
                    references = np.array([[part.ref] for part in parts], dtype=h5py.ref_dtype)
                    group.create_dataset(field, data=references)
            names.append([text.ref])
            boxes.append([group.ref])
        table = file.create_group("digitStruct")
        table.create_dataset("name", data=np.array(names, dtype=h5py.ref_dtype))
        table.create_dataset("bbox", data=np.array(boxes, dtype=h5py.ref_dtype))
    return folder


HOUSES: list[Boxes] = [
    [(1, 10, 10, 5, 20), (10, 16, 12, 5, 20)],
    [(7, 30, 8, 10, 12)],
    [(3, 40, 5, 4, 9), (2, 20, 5, 4, 9)],
    [(k, 6 * k, 5, 5, 9) for k in range(1, 7)],
]


def test_digits_from_the_left_and_zero_written_as_ten(tmp_path: Path) -> None:
    houses = svhn.read(write_svhn(tmp_path, HOUSES))
    assert [house.digits for house in houses] == [(1, 0), (7,), (2, 3), (1, 2, 3, 4, 5, 6)]
    assert houses[0].box == (10, 10, 21, 32)
    assert houses[2].file.name == "3.png"


def test_crops_labels_and_what_is_left_out(tmp_path: Path) -> None:
    write_svhn(tmp_path, HOUSES)
    found = svhn.load(tmp_path, ("train",), size=16, context=0.0)
    assert found.images.shape == (3, 3, 16, 16)
    assert found.labels.tolist() == [[1, 0, NONE, NONE, NONE], [7, *[NONE] * 4], [2, 3, NONE, NONE, NONE]]
    assert found.left_out == {"more than 5 digits": 1}
    assert found.images[1].float().mean() > 160  # without context nothing but the 7 is seen
    wide = svhn.load(tmp_path, ("train",), size=16, context=1.0)
    assert wide.images[1].float().mean() < 80
    assert len(svhn.load(tmp_path, ("train",), size=16, context=0.3, limit=1)) == 1


def test_the_training_split_takes_in_the_extra_one(tmp_path: Path) -> None:
    write_svhn(tmp_path, HOUSES)
    write_svhn(tmp_path, HOUSES[:2], split="extra")
    write_svhn(tmp_path, HOUSES[1:2], split="test")
    data = SvhnData(root=str(tmp_path), size=16)
    assert len(stn_data.load_numbers(data, "train")) == 5
    assert len(stn_data.load_numbers(SvhnData(root=str(tmp_path), size=16, extra=False), "train")) == 3
    counts = stn_data.check_numbers(data)
    assert counts["train: numbers by length"] == {"1": 2, "2": 3, "3": 0, "4": 0, "5": 0}
    assert counts["test: images"] == 1
    assert data.margin() == 0.3
    assert SvhnData(size=128).margin() == 1.6


def _rewrite(folder: Path, path: str, values: Any) -> None:
    with h5py.File(folder / "digitStruct.mat", "r+") as file:
        del file[path]
        file.create_dataset(path, data=np.array(values))


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        ("#refs#/b2/label", [[12.0]], r"image 2 \(2.png\): labels \[12.0\]"),
        ("#refs#/b2/label", [[1.5]], r"image 2 \(2.png\): labels \[1.5\]"),
        ("#refs#/b2/width", [[0.0]], r"image 2 \(2.png\): a box without area"),
        ("#refs#/n2", [[46], [46], [47], [97]], "no PNG name"),
    ],
)
def test_annotations_without_sense_are_named(tmp_path: Path, path: str, values: Any, message: str) -> None:
    folder = write_svhn(tmp_path, HOUSES)
    _rewrite(folder, path, values)
    with pytest.raises(DataError, match=message):
        svhn.read(folder)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write_svhn(tmp_path, HOUSES)
    (folder / "2.png").write_bytes(b"no picture")
    (folder / "3.png").unlink()
    with pytest.raises(DataError) as error:
        svhn.load(tmp_path, ("train",), size=16, context=0.3)
    assert "2.png: cannot be read" in str(error.value)
    assert "3.png: cannot be read" in str(error.value)
    (folder / "digitStruct.mat").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"digitStruct\.mat: damaged"):
        svhn.read(folder)


def test_a_number_outside_of_its_image_is_named(tmp_path: Path) -> None:
    write_svhn(tmp_path, [[(1, 100, 100, 5, 5)]])
    with pytest.raises(DataError, match="lies outside of 60 x 40 pixels"):
        svhn.load(tmp_path, ("train",), size=16, context=0.3)


def test_a_missing_archive_says_where_to_get_it(tmp_path: Path) -> None:
    write_svhn(tmp_path, HOUSES)
    with pytest.raises(DataError, match=r"svhn/extra/digitStruct.mat was looked for") as error:
        stn_data.locate(SvhnData(root=str(tmp_path)))
    assert "ufldl.stanford.edu/housenumbers" in str(error.value)
    assert "paperbench data get svhn" in str(error.value)


def test_generated_numbers_are_functions_of_their_seed() -> None:
    from paperbench.data import numbers

    some = numbers.generate("train", images=6, size=40)
    assert some.images.shape == (6, 3, 40, 40)
    assert torch.equal(numbers.generate("train", images=3, size=40).images, some.images[:3])
    for other in (
        numbers.generate("test", images=6, size=40),
        numbers.generate("train", images=6, size=40, data_seed=1),
    ):
        assert not torch.equal(other.images, some.images)
    lengths = (some.labels != NONE).sum(1)
    assert ((lengths >= 1) & (lengths <= 5)).all()
    for row, length in zip(some.labels, lengths.tolist(), strict=True):
        assert (row[:length] < NONE).all()
        assert (row[length:] == NONE).all()


def test_generated_numbers_are_cut_out_as_tightly_as_those_of_the_archive() -> None:
    from paperbench.data import numbers

    for size, context in ((64, 0.3), (80, 1.6)):
        found = numbers.generate("train", images=12, size=size)
        # The ground is nearly of one colour; what differs most from it along a column is ink.
        brightness = found.images.float().mean(1)
        contrast = (brightness.amax(1) - brightness.amin(1)) > 90
        wide = contrast.float().sum(1) * (1 + context) / size
        assert 0.6 < float(wide.mean()) < 1.2
        middle = (contrast * torch.arange(size)).sum(1) / contrast.sum(1).clamp_min(1)
        assert float((middle - size / 2).abs().max()) < 0.25 * size


def test_the_context_is_shared_out_between_both_sides(tmp_path: Path) -> None:
    """A crop with a context of 1 is twice as wide and high as the box, in the same middle."""
    ramp = np.arange(100, dtype=np.uint8)
    pixels = np.stack(
        [np.tile(ramp, (100, 1)), np.tile(ramp[:, None], (1, 100)), np.zeros((100, 100), np.uint8)], axis=-1
    )
    Image.fromarray(pixels).save(tmp_path / "1.png")
    crop = svhn._crop(svhn.House(tmp_path / "1.png", (1,), (40.0, 44.0, 60.0, 54.0)), 20, 1.0)
    assert (crop[0, 0, 0], crop[0, 0, -1]) == pytest.approx((30.5, 68.5), abs=1)
    assert (crop[1, 0, 0], crop[1, -1, 0]) == pytest.approx((39, 58), abs=1)
