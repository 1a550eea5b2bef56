from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paperbench.data import checks
from paperbench.data.detection import DetectionSet
from paperbench.data.pictures import decode_rgb, inspect
from paperbench.errors import DataError
from tests.data.files import write_image
from tests.data.sets import in_memory, record


def test_counts() -> None:
    dataset, pixels = in_memory(
        record(0, 10, 20, [[0, 0, 5, 5], [1, 1, 6, 6]], difficult=[True, False]),
        record(1, 30, 8),
        record(2, 12, 12, [[0, 0, 5, 5]], crowd=[True]),
    )
    assert checks.examine(replace(dataset, dropped={"zero area": 4}, repaired={"beyond": 2})) == {
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
        checks.examine(dataset)
    assert "2 faults" in str(error.value)
    assert f"{paths[2]}: unreadable image" in str(error.value)
    assert f"{paths[3]}: missing image" in str(error.value)
    assert "on_bad_box" not in str(error.value)  # reading does not look that closely: dropping would not help


def test_pixels_of_another_size_are_found() -> None:
    dataset, _ = in_memory(record(0, 10, 20))
    wrong = replace(dataset, decode=lambda index: np.zeros((20, 10, 3), np.uint8))
    with pytest.raises(DataError, match="image 0: size contradicts the image: 10 x 20 decoded, 20 x 10 announced"):
        checks.examine(wrong)
