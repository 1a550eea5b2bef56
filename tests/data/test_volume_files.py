"""Formats of volumes: what is told by the content, what is refused, and what an independent reader gives."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from paperbench.data.grids import same_place
from paperbench.data.volumes import read_image, read_labels
from paperbench.errors import DataError

AFFINE = np.array([[0, -1.5, 0, 4], [2, 0, 0, -3], [0, 0, 3, 7], [0, 0, 0, 1.0]])
ARRAY = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.int16)


def nifti(path: Path, array: np.ndarray, *, slope: float | None = None) -> Path:
    image = nibabel.Nifti1Image(array, AFFINE)
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    nibabel.save(image, path)
    return path


def test_gzip_is_told_by_the_content(tmp_path: Path) -> None:
    plain = nifti(tmp_path / "a.nii", ARRAY)
    (tmp_path / "named.nii.gz").write_bytes(plain.read_bytes())
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("named.nii.gz", "packed.nii"):
        found = read_image(tmp_path / name)
        np.testing.assert_array_equal(found.array, read_image(plain).array)
        assert "in spite of its name" in found.notes[0]


@pytest.mark.parametrize("ending", ["mha", "nrrd", "hdr"])
def test_other_formats_lie_where_nifti_lies(tmp_path: Path, ending: str) -> None:
    straight = read_image(nifti(tmp_path / "a.nii.gz", ARRAY))
    other = tmp_path / f"b.{ending}"
    if ending == "hdr":
        nibabel.save(nibabel.Nifti1Pair(ARRAY, AFFINE), other)
    else:
        sitk = pytest.importorskip("SimpleITK")  # which reads the NIfTI file by itself
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")), str(other))
    found = read_image(other)
    np.testing.assert_array_equal(found.array, straight.array)
    assert same_place(found, straight)
    np.testing.assert_array_equal(read_labels(other).array, straight.array)


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image")
    with pytest.raises(DataError, match=r"a\.mha: \.mha is read by SimpleITK.*paperbench\[sitk\]"):
        read_image(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("stored", "slope", "labels"),
    [
        (np.array([0, 32768, 65535], np.uint16), 9.155413e-05, [0, 3, 6]),  # 3.00005
        (np.array([0, 0.9999999, 1.9999998], np.float32), None, [0, 1, 2]),
        (np.array([0, 100, 200], np.int16), 0.01, [0, 1, 2]),
    ],
)
def test_labels_that_a_slope_or_a_conversion_left_beside_whole_numbers(
    tmp_path: Path, stored: np.ndarray, slope: float | None, labels: list[int]
) -> None:
    path = nifti(tmp_path / "m.nii", np.broadcast_to(stored, (4, 5, 3)).copy(), slope=slope)
    assert np.unique(read_labels(path).array).tolist() == labels


@pytest.mark.parametrize(
    ("stored", "slope"), [(np.array([0, 0.9, 1], np.float32), None), (np.array([0, 100, 255], np.uint8), 1 / 255)]
)
def test_probabilities_stay_refused(tmp_path: Path, stored: np.ndarray, slope: float | None) -> None:
    path = nifti(tmp_path / "m.nii", np.broadcast_to(stored, (4, 5, 3)).copy(), slope=slope)
    with pytest.raises(DataError, match="probabilities"):
        read_labels(path)


def rgb(path: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), kind), np.eye(4)), path)


def complex_numbers(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.complex64), np.eye(4)), path)


def header(offset: int, value: bytes) -> Any:
    def write(path: Path) -> None:
        content = bytearray(nifti(path, ARRAY).read_bytes())
        content[offset : offset + len(value)] = value
        path.write_bytes(content)

    return write


def no_third_axis(path: Path) -> None:
    image = nibabel.Nifti1Image(ARRAY, None)
    image.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nibabel.save(image, path)


def damaged_stream(path: Path) -> None:
    content = bytearray(gzip.compress(nifti(path, ARRAY).read_bytes()))
    content[-8] ^= 1  # the checksum
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (rgb, "holds colours"),
        (complex_numbers, "complex"),
        (header(70, b"\1\0"), "cannot be read"),  # datatype 1: one bit a voxel
        (header(42, b"\2\0"), "more than its header announces"),  # two voxels along the first axis instead of four
        (header(42, b"\x50\0"), "cannot be read"),
        (no_third_axis, "no usable place|cannot be read"),
        (damaged_stream, "cannot be read"),
    ],
)
def test_whatever_a_reader_raises_names_the_file(tmp_path: Path, write: Any, said: str) -> None:
    path = tmp_path / "bad.nii"
    write(path)
    with pytest.raises(DataError, match=said) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


# --- the place in space -----------------------------------------------------------------------------------------------


def with_fields(path: Path, **fields: Any) -> Path:
    """A volume of voxels of 1 x 2 x 3 whose header has these fields; `pixdim1` is one number of a field."""
    nibabel.save(nibabel.Nifti1Image(ARRAY, np.diag([1.0, 2, 3, 1])), path)
    content = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        if name == "pixdim1":
            header["pixdim"][1] = value
        else:
            header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"sform_code": 1, "srow_y": [0, float("nan"), 0, 0]},
            r"srow_y of its sform is \(0, nan, 0, 0\); convert it again",
        ),
        ({"sform_code": 1, "srow_x": [1, 0, 0, float("inf")]}, r"srow_x of its sform is \(1, 0, 0, inf\)"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": float("nan")}, "the quaternion of its qform"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 2}, "squares sum to more than 1"),
        ({"sform_code": 0, "qform_code": 1, "qoffset_z": float("nan")}, "the offset of its qform"),
        (
            {"sform_code": 0, "qform_code": 0, "pixdim1": float("nan")},
            r"voxel size \(pixdim\) in its header is \(nan, 2, 3\)",
        ),
    ],
)
def test_a_header_without_a_place_is_refused_by_its_field(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"a.nii: its header gives no place in space: .*{said}"):
        read_image(with_fields(tmp_path / "a.nii", **fields))


def test_a_field_that_nothing_is_computed_from_may_hold_anything(tmp_path: Path) -> None:
    found = read_image(with_fields(tmp_path / "a.nii", sform_code=1, qform_code=1, qoffset_x=float("nan")))
    assert found.spacing == (1, 2, 3)
    found = read_image(with_fields(tmp_path / "a.nii", sform_code=0, qform_code=0, srow_x=float("nan"), xyzt_units=5))
    assert found.spacing == (1, 2, 3)


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_lengths_become_millimetres_as_in_another_reader(tmp_path: Path, code: int, factor: float) -> None:
    path = with_fields(tmp_path / "a.nii", xyzt_units=code)
    found = read_image(path)
    assert found.spacing == pytest.approx([factor, 2 * factor, 3 * factor])
    assert bool(found.notes) == (factor != 1)
    sitk = pytest.importorskip("SimpleITK")
    assert found.spacing == pytest.approx(sitk.ReadImage(str(path)).GetSpacing())


def test_a_voxel_size_of_nothing_is_remarked_on(tmp_path: Path) -> None:
    found = read_image(with_fields(tmp_path / "a.nii", sform_code=0, qform_code=0, pixdim1=0))
    assert "the voxel sizes (0, 2, 3): what is 0 is taken as 1" in found.notes[0]


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_deep_pictures_keep_their_values(tmp_path: Path) -> None:
    deep = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep.astype(np.float32) / 7).save(tmp_path / "float.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png").array, deep)
    np.testing.assert_array_equal(read_labels(tmp_path / "deep.png").array, deep)
    np.testing.assert_array_equal(read_image(tmp_path / "float.tif").array, deep.astype(np.float32) / 7)


def test_pictures_without_one_meaning_are_refused(tmp_path: Path) -> None:
    page = Image.fromarray(np.zeros((8, 8), np.uint8))
    page.save(tmp_path / "stack.tif", save_all=True, append_images=[page, page])
    page.save(tmp_path / "mask.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    page.save(tmp_path / "turned.png", exif=exif)
    for name, said in (("stack.tif", "3 pages"), ("turned.png", "orientation 6")):
        with pytest.raises(DataError, match=said):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="a mask as JPEG"):
        read_labels(tmp_path / "mask.jpg")
    assert read_image(tmp_path / "mask.jpg").shape == (8, 8)


def test_a_damaged_chunk_is_an_error_of_the_file(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20)).astype(np.uint8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[37] ^= 0x20  # a letter of IDAT: an unknown critical chunk
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(tmp_path / "a.png")
