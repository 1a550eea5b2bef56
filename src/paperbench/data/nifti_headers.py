"""The place in space that a NIfTI header gives, looked at before nibabel computes with it: what is wrong is named by its field.

The standard: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h, "3D image (volume) orientation and location in space".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from paperbench.data.grids import numbers
from paperbench.errors import DataError

MILLIMETRES: Final = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}
"""Lengths that a header may count in. Of an unknown unit it is taken for granted that it is the millimetre."""
_REMEDY: Final = "convert it again from its source, or give it the header of the image that it belongs to"
_SLACK: Final = 1e-5
"""By how much the squares of a quaternion in float32 may sum to more than 1."""


def check_header(path: Path, raw: bytes) -> tuple[str, ...]:
    """Return what is remarkable about the header at the beginning of `raw`; nothing for one that is no NIfTI header.

    Raises DataError for a header whose place in space cannot be computed.
    """
    header = _header(raw)
    if header is None:
        return ()
    notes = (
        () if unit(header) == 1 else (f"its header counts lengths in {_unit_name(header)}s, which become millimetres",)
    )
    if int(header["sform_code"]) > 0:
        for axis in "xyz":
            _refuse_infinite(path, f"the row srow_{axis} of its sform", header[f"srow_{axis}"])
        return notes
    pixdim = np.asarray(header["pixdim"], np.float64)
    axes = pixdim[1 : 1 + min(3, max(1, int(header["dim"][0])))]
    if int(header["qform_code"]) > 0:
        quaternion = np.array([float(header[f"quatern_{part}"]) for part in "bcd"])
        _refuse_infinite(path, "the quaternion of its qform", quaternion)
        _refuse_infinite(path, "the offset of its qform", [float(header[f"qoffset_{axis}"]) for axis in "xyz"])
        if float(quaternion @ quaternion) > 1 + _SLACK:
            raise DataError(
                f"{path}: its header gives no place in space: the quaternion of its qform is {numbers(quaternion)}, whose squares "
                f"sum to more than 1; {_REMEDY}"
            )
    _refuse_infinite(path, "the voxel size (pixdim) in its header", axes)
    if (axes == 0).any():
        return (*notes, f"its header gives the voxel sizes {numbers(axes)}: what is 0 is taken as 1")
    return notes


def unit(header: Any) -> float:
    """Return the millimetres in the unit of a header's lengths."""
    return MILLIMETRES.get(_unit_name(header), 1.0)


def _unit_name(header: Any) -> str:
    try:
        return str(header.get_xyzt_units()[0])
    except (AttributeError, KeyError):  # no NIfTI header, and a code that stands for nothing
        return "unknown"


def _header(raw: bytes) -> Any:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    for kind, magics in ((Nifti1Header, (b"n+1", b"ni1")), (Nifti2Header, (b"n+2", b"ni2"))):
        size = kind.template_dtype.itemsize
        if len(raw) >= size:
            header = kind(raw[:size], check=False)
            if bytes(header["magic"])[:3] in magics:
                return header
    return None


def _refuse_infinite(path: Path, what: str, values: Any) -> None:
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: its header gives no place in space: {what} is {numbers(values)}; {_REMEDY}")
