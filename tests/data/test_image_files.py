from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paperbench.data.image_files import MISSING, TRUNCATED, UNREADABLE, BadImageError, Header, inspect, inspect_all
from paperbench.data.pictures import decode_rgb
from tests.data.files import write_image


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_size_comes_from_the_header(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a{suffix}", height=33, width=21)
    assert inspect(path) == (33, 21)
    assert decode_rgb(path).shape == (33, 21, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncation_is_found_without_decoding_sound_files(tmp_path: Path, suffix: str, share: float) -> None:
    path = write_image(tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for read in (inspect, decode_rgb):
        with pytest.raises(BadImageError) as error:
            read(path)
        assert error.value.reason == TRUNCATED
        assert str(path) in str(error.value)


def test_bytes_after_the_end_are_no_fault(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"appended by a camera")
    assert inspect(path) == (40, 60)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, MISSING), (b"", TRUNCATED), (b"<html>404</html>", UNREADABLE), (b"\xff\xd8\xff", UNREADABLE)],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadImageError, match=r"a\.jpg") as error:
        inspect(path)
    assert error.value.reason == reason


def test_many_at_once_keep_their_order(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{k}.png", height=10 + k) for k in range(5)]
    paths.insert(2, tmp_path / "absent.png")
    found = inspect_all(paths)
    assert isinstance(found[2], BadImageError)
    assert [header.size for header in found if isinstance(header, Header)] == [(10 + k, 60) for k in range(5)]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = ".jpg" if mode == "CMYK" else ".png"
    Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(tmp_path / f"a{suffix}")
    pixels = decode_rgb(tmp_path / f"a{suffix}")
    assert pixels.shape == (6, 8, 3)
    assert pixels.dtype == np.uint8
    assert (pixels > 250).all()


def test_orientation_tags_are_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees when shown
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert inspect(tmp_path / "a.jpg") == (20, 30)
    assert decode_rgb(tmp_path / "a.jpg").shape == (20, 30, 3)
