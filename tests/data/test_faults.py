from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paperbench.data.detection import DetectionSet
from paperbench.data.faults import (
    FRACTIONS,
    INVERTED,
    NOT_FINITE,
    OUTSIDE,
    ZERO_AREA,
    Faults,
    check_dataset,
    examine_boxes,
)
from paperbench.data.image_files import inspect
from paperbench.data.pictures import decode_rgb
from paperbench.errors import DataError
from tests.data.files import write_image
from tests.data.sets import in_memory, record

SIZE = np.array([[375, 500]])


def examine(*box: float, first_pixel: int | None = 1) -> tuple[list[float], str | None, bool]:
    boxes, reasons, clipped = examine_boxes(np.array([box]), SIZE, first_pixel=first_pixel)
    return boxes[0].tolist(), reasons[0], bool(clipped[0])


@pytest.mark.parametrize(
    ("box", "first_pixel", "expected"),
    [
        ((1, 1, 500, 375), 1, [0, 0, 500, 375]),
        ((48, 240, 195, 371), 1, [47, 239, 195, 371]),
        ((0, 0, 499, 374), 0, [0, 0, 500, 375]),
        ((0, 0, 500, 375), None, [0, 0, 500, 375]),
        ((10.5, 20.25, 30.5, 40.25), None, [10.5, 20.25, 30.5, 40.25]),
    ],
)
def test_conventions(box: tuple[float, ...], first_pixel: int | None, expected: list[float]) -> None:
    assert examine(*box, first_pixel=first_pixel) == (expected, None, False)


@pytest.mark.parametrize(
    ("box", "expected"), [((0, 0, 10, 10), [0, 0, 10, 10]), ((400, 300, 501, 376), [399, 299, 500, 375])]
)
def test_a_pixel_beyond_the_border_is_clipped_and_counted(box: tuple[float, ...], expected: list[float]) -> None:
    assert examine(*box) == (expected, None, True)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((5, 5, 5, 9), ZERO_AREA),
        ((5, 9, 8, 9), ZERO_AREA),
        ((9, 5, 5, 9), INVERTED),
        ((5, 9, 9, 5), INVERTED),
        ((-1, 5, 9, 9), OUTSIDE),
        ((5, 5, 502, 9), OUTSIDE),
        ((501, 5, 502, 9), OUTSIDE),
        ((600, 400, 700, 500), OUTSIDE),
        ((65535, 5, 65536, 9), OUTSIDE),  # what -1 becomes in 16 bits without a sign
        ((5, 4294967295, 9, 4294967296), OUTSIDE),
        ((65535, 5, 9, 9), INVERTED),
        ((float("nan"), 5, 9, 9), NOT_FINITE),
        ((5, 5, float("inf"), 9), NOT_FINITE),
    ],
)
def test_each_fault_has_its_reason(box: tuple[float, ...], reason: str) -> None:
    _, found, clipped = examine(*box)
    assert found == reason
    assert not clipped


def test_no_boxes_at_all() -> None:
    boxes, reasons, clipped = examine_boxes(np.zeros((0, 4)), np.zeros((0, 2), np.int64), first_pixel=None)
    assert boxes.shape == (0, 4)
    assert reasons == []
    assert clipped.shape == (0,)


def test_the_error_names_the_first_twenty_and_counts_all() -> None:
    faults = Faults("devkit (train)", "error")
    for k in range(23):
        faults.add(ZERO_AREA, f"file {k}, object 1", "(1, 1, 1, 1)")
    faults.add(INVERTED, "file 23, object 1", "(2, 1, 1, 1)")
    with pytest.raises(DataError) as error:
        faults.finish(5)
    message = str(error.value)
    assert "devkit (train): 24 faults" in message
    assert "file 19, object 1: zero area: (1, 1, 1, 1)" in message
    assert "file 20," not in message
    assert "and 4 more" in message
    assert "23 x zero area, 1 x inverted corners" in message
    assert "data.on_bad_box=drop" in message


def test_drop_counts_unless_nothing_is_left() -> None:
    faults = Faults("devkit", "drop")
    faults.add(ZERO_AREA, "file", "")
    faults.add(ZERO_AREA, "file", "")
    assert faults.finish(1) == {ZERO_AREA: 2}
    with pytest.raises(DataError, match="No usable image is left"):
        faults.finish(0)


def test_without_faults_nothing_is_counted() -> None:
    assert Faults("devkit", "error").finish(0) == {}


def test_an_unknown_way_to_treat_faults_is_refused() -> None:
    with pytest.raises(ValueError, match="'ignore'"):
        Faults("devkit", "ignore")  # type: ignore[arg-type]


# --- a whole data set -------------------------------------------------------------------------------------------------


def test_counts() -> None:
    dataset, pixels = in_memory(
        record(0, 10, 20, [[0, 0, 5, 5], [1, 1, 6, 6]], difficult=[True, False]),
        record(1, 30, 8),
        record(2, 12, 12, [[0, 0, 5, 5]], crowd=[True]),
    )
    assert check_dataset(replace(dataset, dropped={"zero area": 4}, repaired={"beyond": 2})) == {
        "images": 3,
        "objects": 3,
        "images without objects": 1,
        "difficult objects": 1,
        "crowd regions": 1,
        "smallest image": "12 x 12",
        "largest image": "8 x 30",
        "left out: zero area": 4,
        "clipped: beyond": 2,
        "objects by class": {"a": 2, "b": 1, "c": 0},
    }
    assert sorted(pixels.asked) == [0, 1, 2]


def files(folder: Path, count: int) -> tuple[DetectionSet, list[Path]]:
    paths = [write_image(folder / f"{k}.png", seed=k) for k in range(count)]
    dataset, _ = in_memory(*(record(k, 40, 60) for k in range(count)))
    return replace(dataset, decode=lambda index: decode_rgb(paths[index])), paths


def test_damage_in_the_middle_of_a_file_is_found(tmp_path: Path) -> None:
    """The quick look at reading time sees head and end of a file only; this one decodes."""
    dataset, paths = files(tmp_path, 4)
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[:2000] + bytes(100) + content[2100:])
    assert inspect(paths[2]) == (40, 60)
    paths[3].unlink()
    with pytest.raises(DataError) as error:
        check_dataset(dataset)
    assert "2 faults" in str(error.value)
    assert f"{paths[2]}: unreadable image" in str(error.value)
    assert f"{paths[3]}: missing image" in str(error.value)
    assert "on_bad_box" not in str(error.value)  # reading does not look that closely: dropping would not help


def test_pixels_of_another_size_are_found() -> None:
    dataset, _ = in_memory(record(0, 10, 20))
    wrong = replace(dataset, decode=lambda index: np.zeros((20, 10, 3), np.uint8))
    with pytest.raises(DataError, match="image 0: size contradicts the image: 10 x 20 decoded, 20 x 10 announced"):
        check_dataset(wrong)


@pytest.mark.parametrize("first_pixel", [None, 0, 1])
def test_boxes_that_are_shares_of_the_image_are_faulty(first_pixel: int | None) -> None:
    sizes = np.array([[64, 96]] * 2)
    shares = np.array([[0.1, 0.2, 0.5, 0.9], [0.25, 0.25, 1, 1]])
    assert examine_boxes(shares, sizes, first_pixel=first_pixel)[1] == [FRACTIONS] * 2
    pixels = np.array([[0.1, 0.2, 0.5, 0.9], [0.25, 0.25, 7, 1]])  # the first is small
    assert examine_boxes(pixels, sizes, first_pixel=first_pixel)[1] == [None] * 2
    corner = np.array([[0.0, 0, 1, 1]])
    assert examine_boxes(corner, sizes[:1], first_pixel=first_pixel)[1] == [None]


def test_one_fault_in_many_places_is_explained_once() -> None:
    faults, why = Faults("x", "error"), "(class, centre x and y, width, height, confidence)"
    for number in range(3):
        faults.add("wrong number of columns", f"a.txt:{number}", f"5 numbers, expected 6 {why}")
    faults.add("wrong number of columns", "b.txt:1", "7 numbers, expected 6")

    with pytest.raises(DataError) as error:
        faults.finish(1)
    assert str(error.value).count("5 numbers, expected 6") == 1
    assert "a.txt:2: wrong number of columns: as above" in str(error.value)
    assert "b.txt:1: wrong number of columns: 7 numbers" in str(error.value)
