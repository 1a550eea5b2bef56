"""The decoder of pictures: the same digit in many encodings looks the same, or is refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from paperbench.data.image_files import BadImageError, inspect, read_header
from paperbench.data.pictures import decode_rgb, read_picture

GREY = np.add.outer(np.arange(12), 20 * np.arange(12)).astype(np.uint8)  # 0 to 231, no symmetry


def _same(path: Path, grey: NDArray[np.uint8] = GREY, tolerance: int = 0) -> None:
    pixels = decode_rgb(path)
    assert pixels.shape == (*grey.shape, 3)
    assert np.abs(pixels.astype(int) - grey[..., None]).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_grey_levels(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / f"a{suffix}")
    _same(tmp_path / f"a{suffix}")
    assert read_picture(tmp_path / f"a{suffix}").notes == ()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_sixteen_are_scaled_by_their_depth_and_said(tmp_path: Path, bits: int) -> None:
    Image.fromarray(GREY.astype(np.uint16) << (bits - 8)).save(tmp_path / "a.png")
    _same(tmp_path / "a.png", tolerance=1)
    assert f"read as {bits} bits" in read_picture(tmp_path / "a.png").notes[0]


@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_colours_in_sixteen_bits_are_scaled_by_their_depth(tmp_path: Path, bits: int, opaque: bool) -> None:
    colours = np.stack([GREY, GREY.T, 231 - GREY], axis=2)
    layers = colours if opaque else np.dstack([colours, np.full_like(GREY, 255)])
    values = layers.astype(np.uint16) * 257 if bits == 16 else layers.astype(np.uint16) << (bits - 8)
    cv2.imwrite(str(tmp_path / "a.png"), values[..., [2, 1, 0, 3][: values.shape[2]]])
    picture = read_picture(tmp_path / "a.png")
    if bits == 16 or opaque:
        assert np.abs(picture.pixels.astype(int) - colours).max() <= 1
        assert bool(picture.notes) == (bits < 16)


@pytest.mark.parametrize(
    ("bits", "sample", "samples", "message"), [(8, 2, 1, "signed"), (16, 1, 3, r"stored apart \(planar\)")]
)
def test_tiffs_that_pillow_reads_wrong_are_refused(
    tmp_path: Path, bits: int, sample: int, samples: int, message: str
) -> None:
    planes = samples
    tags = [(256, 4), (257, 4), (258, bits), (259, 1), (262, 2 if samples == 3 else 1), (277, samples), (278, 4)]
    size = 16 * bits // 8
    table = struct.pack("<H", len(tags) + 4)
    far = 8 + 2 + 12 * (len(tags) + 4) + 4
    data_at = far + 40
    lists = {273: [data_at + k * size for k in range(planes)], 279: [size] * planes}
    extra = b""
    entries = [(key, struct.pack("<HHIHH", key, 3, 1, value, 0)) for key, value in tags]
    for key, values in lists.items():
        place = values[0] if planes == 1 else far + len(extra)
        extra += b"" if planes == 1 else struct.pack(f"<{planes}I", *values)
        entries.append((key, struct.pack("<HHII", key, 4, planes, place)))
    entries += [(key, struct.pack("<HHIHH", key, 3, 1, value, 0)) for key, value in [(284, 2), (339, sample)]]
    table += b"".join(entry for _, entry in sorted(entries)) + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(
        b"II*\0" + struct.pack("<I", 8) + table + extra.ljust(40, b"\0") + bytes(size * planes)
    )
    for read in (inspect, decode_rgb):
        with pytest.raises(BadImageError, match=message):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "message"), [(b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"), (b"<!DOCTYPE html><p>404", "a web page")]
)
def test_files_of_another_kind_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(BadImageError, match=message):
        inspect(tmp_path / "a.jpg")


def test_a_pgm_names_its_own_white(tmp_path: Path) -> None:
    header = b"P5 12 12 1000\n"
    (tmp_path / "a.pgm").write_bytes(header + (GREY.astype(np.float64) * 1000 / 255).round().astype(">u2").tobytes())
    _same(tmp_path / "a.pgm", tolerance=1)


def test_a_tiff_whose_zero_is_white_is_turned_round(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    Image.fromarray((255 - GREY).astype(np.uint16) * 257).save(tmp_path / "a.tif", tiffinfo=tags)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0  # pyright: ignore[reportAttributeAccessIssue]
    _same(tmp_path / "a.tif")


@pytest.mark.parametrize("values", [GREY.astype(np.float32) / 255, GREY.astype(np.int32)])
def test_values_without_a_white_are_refused_before_and_while_decoding(tmp_path: Path, values: NDArray) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    for read in (inspect, decode_rgb):
        with pytest.raises(BadImageError, match=r"a\.tif.*store 8 or 16 bits"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".png"])
def test_several_pages_are_refused(tmp_path: Path, suffix: str) -> None:
    pages = [Image.fromarray(np.roll(GREY, k, 0)) for k in range(3)]
    pages[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=pages[1:])
    for read in (inspect, decode_rgb):
        with pytest.raises(BadImageError, match="3 pages or frames"):
            read(tmp_path / f"a{suffix}")


def test_a_smaller_copy_beside_the_picture_is_no_page(tmp_path: Path) -> None:
    small = Image.fromarray(GREY[::2, ::2])
    small.encoderinfo = {"tiffinfo": {254: 1}}  # pyright: ignore[reportAttributeAccessIssue]
    Image.fromarray(GREY).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    _same(tmp_path / "a.tif")


@pytest.mark.parametrize(("ink", "shown"), [(0, 255 - GREY), (255, GREY)])
def test_transparent_pictures_are_laid_over_a_ground_on_which_they_are_seen(
    tmp_path: Path, ink: int, shown: NDArray[np.uint8]
) -> None:
    Image.fromarray(np.dstack([np.full((12, 12, 3), ink, np.uint8), GREY])).save(tmp_path / "a.png")
    _same(tmp_path / "a.png", shown)
    assert "laid over" in read_picture(tmp_path / "a.png").notes[0]


def test_a_palette_keeps_its_colours_where_they_are_opaque(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    assert decode_rgb(tmp_path / "a.png")[:2, 0].tolist() == [[255, 255, 255], [200, 100, 50]]


def test_a_transparent_grey_level_of_sixteen_bits(tmp_path: Path) -> None:
    values = np.where(GREY > 100, 30000, 0).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=0)
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["transparency"] == 0
    assert set(decode_rgb(tmp_path / "a.png")[..., 0].ravel().tolist()) == {117, 255}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_or_ignored_and_said(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = GREY[:8]
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    ignored = read_picture(tmp_path / "a.png", exif="ignore")
    assert np.array_equal(ignored.pixels[..., 0], stored)
    applied = read_picture(tmp_path / "a.png", exif="apply")
    # Rows and columns of the upright picture, from the table of the EXIF standard.
    turned = stored.T if orientation >= 5 else stored
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    assert np.array_equal(applied.pixels[..., 0], turned[::rows, ::columns])
    assert len(applied.notes) == (orientation != 1)
    header = read_header(tmp_path / "a.png")
    assert (header.size, header.shown) == (stored.shape, turned.shape)


def test_a_tiff_that_is_stored_turned_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY[:8]).save(tmp_path / "a.tif", tiffinfo={274: 6})
    for read in (inspect, decode_rgb):
        with pytest.raises(BadImageError, match="store it upright"):
            read(tmp_path / "a.tif")


def test_damaged_metadata_say_nothing_about_the_pixels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\xff\xff")
    _same(tmp_path / "a.png")
