"""Pictures and NIfTI volumes: what is read, what is refused, and whether two grids are one."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from paperbench.data.grids import on_grid_of, same_place, share_outside
from paperbench.data.volumes import read_image, read_labels, stem
from paperbench.errors import DataError


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def placed(
    spacing: tuple[float, float, float] = (1, 1, 1), origin: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii.gz", "a"), ("b.c.NII", "b.c"), ("d.png", "d"), ("e.txt", None), (".hidden.png", None)],
)
def test_names_without_endings(name: str, expected: str | None) -> None:
    assert stem(Path(name)) == expected


def test_a_volume_with_its_spacing(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = read_image(nifti(tmp_path / "v.nii.gz", array, placed((1.5, 2, 3))))
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype == np.float32
    assert volume.spacing == (1.5, 2.0, 3.0)


def test_axes_are_brought_to_those_of_the_patient(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    straight = read_image(nifti(tmp_path / "a.nii", array, placed((1, 2, 3))))
    turned = np.zeros((4, 4))
    turned[0, 1], turned[1, 2], turned[2, 0], turned[3, 3] = -1, 2, 3, 1  # axes z, x (backwards), y
    turned[0, 3] = 1
    stored = np.ascontiguousarray(array.transpose(2, 0, 1)[:, ::-1])
    other = read_image(nifti(tmp_path / "b.nii", stored, turned))
    np.testing.assert_array_equal(other.array, straight.array)
    assert same_place(straight, other)


def test_one_slice_is_a_picture_of_two_dimensions(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(5, 1, 7)).astype(np.float32)
    volume = read_image(nifti(tmp_path / "slice.nii", array, placed((1, 5, 2))))
    assert volume.shape == (5, 7)
    assert volume.spacing == (1.0, 2.0)
    assert same_place(volume, volume)


@pytest.mark.parametrize(("shift", "same"), [(1e-5, True), (1.0, False)])
def test_a_hair_of_difference_is_none_and_a_millimetre_is_named(tmp_path: Path, shift: float, same: bool) -> None:
    array = np.ones((4, 5, 6), np.uint8)
    image = read_image(nifti(tmp_path / "image.nii", array))
    mask = read_labels(nifti(tmp_path / "mask.nii", array, placed(origin=(0, shift, 0))))
    if same:
        assert on_grid_of(image, mask) is mask.array
        return
    with pytest.raises(DataError, match="lies elsewhere") as caught:
        on_grid_of(image, mask)
    for said in ("mask.nii", "image.nii", "origin (0, 1, 0)", "origin (0, 0, 0)", "resample=true"):
        assert said in str(caught.value)


def test_a_mask_elsewhere_can_be_laid_over_its_image(tmp_path: Path) -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4] = 7
    image = read_image(
        nifti(tmp_path / "image.nii", np.zeros((12, 12, 12), np.uint8), placed((0.5, 0.5, 0.5), (-0.25, -0.25, -0.25)))
    )
    mask = read_labels(nifti(tmp_path / "mask.nii", labels))
    found = on_grid_of(image, mask, resample=True)
    wanted = labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(found, wanted)


def test_a_picture_of_another_size_can_be_laid_over_too(tmp_path: Path) -> None:
    labels = np.array([[0, 3], [5, 0]], np.uint8)
    Image.fromarray(labels).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "image.png")
    image, mask = read_image(tmp_path / "image.png"), read_labels(tmp_path / "mask.png")
    with pytest.raises(DataError, match="shape 2 x 2"):
        on_grid_of(image, mask)
    np.testing.assert_array_equal(on_grid_of(image, mask, resample=True), labels.repeat(2, 0).repeat(2, 1))


def test_a_qform_that_contradicts_the_sform_is_mentioned(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4))
    image.set_qform(placed(origin=(9, 0, 0)), code=1)
    image.set_sform(np.eye(4), code=1)
    nibabel.save(image, tmp_path / "two.nii")
    assert "its qform differs: origin (9, 0, 0)" in read_labels(tmp_path / "two.nii").header


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((3, 3, 3), 0.5, np.float32), "holds 0.5"),
        (np.full((3, 3, 3), -1, np.int16), "holds the label -1"),
        (np.full((3, 3, 3, 2), 1, np.uint8), "several volumes"),
    ],
)
def test_what_is_no_label_map(tmp_path: Path, array: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_labels(nifti(tmp_path / "mask.nii", array))


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "torn.nii.gz").write_bytes(nifti(tmp_path / "w.nii.gz", np.ones((9, 9, 9), np.int16)).read_bytes()[:60])
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    nifti(tmp_path / "nan.nii", np.full((3, 3, 3), np.nan, np.float32))
    for name, said in (
        ("torn.nii.gz", "NIfTI"),
        ("text.png", "as an image"),
        ("nan.nii", "27 values"),
        ("none.png", "no such"),
    ):
        with pytest.raises(DataError, match=said):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="mask in colour"):
        read_labels(tmp_path / "colour.png")
    assert read_image(tmp_path / "colour.png").shape == (4, 4)


def test_headers_that_differ_by_a_rotation_are_told_apart(tmp_path: Path) -> None:
    turned = placed()
    turned[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    array = np.ones((21, 21, 5), np.uint8)
    image, mask = (
        read_labels(nifti(tmp_path / name, array, affine)) for name, affine in (("i.nii", placed()), ("m.nii", turned))
    )
    # The corner (20, 20) turns by 0.1 around the origin.
    with pytest.raises(DataError, match=f"up to {2 * np.sin(0.05) * np.hypot(20, 20):.4g} mm apart") as caught:
        on_grid_of(image, mask)
    assert "lost its header" in str(caught.value)


@pytest.mark.parametrize("shape", [(6, 6, 6), (6, 6, 1)])
def test_nothing_of_a_mask_elsewhere_is_no_empty_mask(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    labels = np.ones(shape, np.uint8)
    image = read_image(nifti(tmp_path / "image.nii", labels, placed()))
    mask = read_labels(nifti(tmp_path / "mask.nii", labels, placed(origin=(0, 0, 60))))
    with pytest.raises(DataError, match="nothing of it lies in its image"):
        on_grid_of(image, mask, resample=True)


def test_the_part_of_a_mask_beside_its_image(tmp_path: Path) -> None:
    labels = np.zeros((8, 4, 4), np.uint8)
    labels[:4] = 1
    image = read_image(nifti(tmp_path / "image.nii", labels))
    mask = read_labels(nifti(tmp_path / "mask.nii", labels, placed(origin=(-3, 0, 0))))
    assert share_outside(image, mask) == 0.75
