"""Formats of volumes: NIfTI and Analyze through nibabel, MetaImage and NRRD through SimpleITK (an extra).

A file is brought to the axes of the patient (RAS+) by flips and permutations alone, no value is interpolated; an axis of length 1
is dropped. Lengths become millimetres. Whether a file is packed with gzip is told by its content, not by its name.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from paperbench.data.grids import Volume, numbers, times
from paperbench.data.nifti_headers import check_header, unit
from paperbench.errors import DataError, EnvironmentError_

NIFTI: Final = (".nii", ".nii.gz")
PAIRS: Final = (".hdr", ".hdr.gz")
"""NIfTI and Analyze in two files; the other is `.img`."""
ITK: Final = (".mha", ".mhd", ".nrrd", ".nhdr")
VOLUMES: Final = (*NIFTI, *PAIRS, *ITK)

_GZIP: Final = b"\x1f\x8b"
_NIFTI2_HEADER: Final = 540
_PADDING: Final = 511
"""Zero bytes that may follow the voxels: some programs fill the last block."""


def read_volume(path: Path) -> Volume:
    """Read a volume. Raises DataError for one that cannot be read, and EnvironmentError_ where SimpleITK is needed and missing."""
    try:
        loaded, notes = _loaded(path)
        _refuse_other_numbers(path, loaded.get_data_dtype())
        return _volume(path, loaded, notes)
    except (DataError, EnvironmentError_):
        raise
    except Exception as error:  # readers of damaged files raise whatever their parsing stumbles over
        text = " ".join(str(error).split()) or type(error).__name__
        kind = "by SimpleITK" if path.name.lower().endswith(ITK) else "as NIfTI"
        raise DataError(f"{path}: cannot be read {kind}: {text}") from error


def _loaded(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return nibabel's image of the file, and what was noticed about it."""
    name = path.name.lower()
    if name.endswith(ITK):
        return _itk(path), ()
    import nibabel

    content = path.read_bytes()
    packed = content.startswith(_GZIP)
    # The whole stream is read, so that its checksum is compared.
    raw = gzip.decompress(content) if packed else content
    notes = check_header(path, raw)
    if name.endswith(PAIRS):
        return nibabel.load(path), notes
    kind = nibabel.Nifti2Image if int.from_bytes(raw[:4], "little") in _NIFTI2_SIZES else nibabel.Nifti1Image
    loaded = cast(Any, kind.from_bytes(raw))
    _refuse_surplus(path, loaded, raw)
    return loaded, notes if packed == name.endswith(".gz") else (*notes, _misnamed(packed))


_NIFTI2_SIZES: Final = (_NIFTI2_HEADER, int.from_bytes(_NIFTI2_HEADER.to_bytes(4, "big"), "little"))


def _misnamed(packed: bool) -> str:
    return "packed with gzip in spite of its name" if packed else "not packed with gzip, in spite of its name"


def _refuse_surplus(path: Path, loaded: Any, raw: bytes) -> None:
    """Raise DataError for more voxels than the header announces: one of the two is wrong."""
    voxels = int(np.prod(loaded.shape, dtype=np.int64)) * loaded.get_data_dtype().itemsize
    rest = raw[int(loaded.dataobj.offset) + voxels :]
    if len(rest) > _PADDING or any(rest):
        raise DataError(
            f"{path}: holds {len(rest):,} bytes more than its header announces (shape {times(loaded.shape)}, "
            f"{loaded.get_data_dtype()}): its header or its voxels are damaged"
        )


def _refuse_other_numbers(path: Path, kind: np.dtype[Any]) -> None:
    if kind.fields is not None:
        raise DataError(
            f"{path}: holds colours ({', '.join(kind.names or ())}); store grey values or labels, one number a voxel"
        )
    if kind.kind == "c":
        raise DataError(f"{path}: holds complex numbers ({kind}); store their magnitude")


def _volume(path: Path, loaded: Any, notes: tuple[str, ...]) -> Volume:
    import nibabel

    place = np.asarray(loaded.affine, np.float64)
    if not np.isfinite(place).all():
        raise DataError(f"{path}: its header gives no place in space: its numbers are not all finite")
    header = describe_header(loaded)
    sizes = np.linalg.norm(place[:3, :3], axis=0)
    if not sizes.all() or abs(np.linalg.det(place[:3, :3] / sizes)) < 1e-9:
        raise DataError(f"{path}: its header gives no usable place in space: {header}")
    image = cast(Any, nibabel.as_closest_canonical(loaded))
    array = np.asarray(image.dataobj)
    affine = np.asarray(image.affine, np.float64)
    affine[:3] *= unit(loaded.header)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 3:
        raise DataError(f"{path}: has the shape {times(array.shape)}, several volumes in one file; give one of them")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[: array.ndim]
    used = [axis for axis, length in enumerate(array.shape) if length > 1]
    if len(used) == 2:
        array = array.reshape([array.shape[axis] for axis in used])
        order = [*used, *(axis for axis in range(3) if axis not in used)]
        affine = affine[:, [*order, 3]]
        spacing = np.linalg.norm(affine[:3, :2], axis=0)
    return Volume(
        array=array,
        spacing=tuple(map(float, spacing)),
        affine=affine,
        header=header,
        source=str(path),
        slope=float(getattr(loaded.dataobj, "slope", 1.0)),
        notes=notes,
    )


def describe_header(image: Any) -> str:
    """Describe shape, spacing, origin and codes of a header in one line; a qform that contradicts the sform is mentioned."""
    header, affine, scale = image.header, image.affine, unit(image.header)
    spacing = scale * np.linalg.norm(affine[:3, :3], axis=0)
    text = (
        f"shape {times(image.shape)}, spacing {numbers(spacing)} mm, origin {numbers(scale * affine[:3, 3])} mm, "
        f"axes {''.join(_axes(affine))}"
    )
    qform, q_code = header.get_qform(coded=True) if hasattr(header, "get_qform") else (None, 0)
    sform, s_code = header.get_sform(coded=True) if hasattr(header, "get_sform") else (None, 0)
    if qform is not None and sform is not None:
        text += f", from the {'sform' if s_code else 'qform' if q_code else 'voxel sizes'}"
        if not np.allclose(qform, sform, atol=1e-3):
            text += f" (its qform differs: origin {numbers(scale * qform[:3, 3])} mm)"
    return text


def _axes(affine: NDArray[np.float64]) -> tuple[str, ...]:
    from nibabel.orientations import aff2axcodes

    return tuple("?" if code is None else str(code) for code in aff2axcodes(affine))


def _itk(path: Path) -> Any:
    """Read by SimpleITK, whose axes are x, y, z from last to first and whose millimetres count to the left and the back (LPS)."""
    import nibabel

    try:
        import SimpleITK
    except ImportError as error:
        raise DataError(
            f"{path}: {path.suffix} is read by SimpleITK, which is not installed: pip install 'paperbench[sitk]', or convert "
            "the file to NIfTI"
        ) from error
    image = cast(Any, SimpleITK).ReadImage(str(path))
    dims, parts = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if parts > 1 or dims not in (2, 3):
        raise DataError(
            f"{path}: holds {dims} axes and {parts} numbers a voxel; two or three axes of one number are read"
        )
    array = np.asarray(SimpleITK.GetArrayFromImage(image)).T
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(dims, dims)
    affine[:dims, :dims] = direction * np.array(image.GetSpacing())
    affine[:dims, 3] = image.GetOrigin()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    whole = array[..., None] if dims == 2 else array
    if whole.dtype == np.int64:  # which nibabel writes only where it is named
        return nibabel.Nifti1Image(whole, affine, dtype=np.int64)
    return nibabel.Nifti1Image(whole, affine)
