"""Photographs that a camera stored turned (EXIF), in data sets whose annotations count pixels: one choice for a whole data set.

`ignore`, the default, takes pixels as they are stored, as the tools of VOC and COCO do; `apply` turns them upright, for annotations
that were drawn on what a viewer shows.
"""

from __future__ import annotations

from typing import Final

from paperbench.data.image_files import Header
from paperbench.data.pictures import Exif

_REMARKS: Final = {
    "ignore": "images with an EXIF orientation, read as stored (data.exif=apply turns them upright)",
    "apply": "images with an EXIF orientation, turned upright (data.exif=ignore reads them as stored)",
}
_OTHER: Final[dict[Exif, Exif]] = {"ignore": "apply", "apply": "ignore"}


def size_of(header: Header, exif: Exif) -> tuple[int, int]:
    """Return the height and width of the pixels that `exif` gives."""
    return header.shown if exif == "apply" else header.size


def orientation_remark(images: int, exif: Exif) -> dict[str, int]:
    """Return the remark on so many images that carry an orientation other than upright, as `DetectionSet.remarks` takes it."""
    return {_REMARKS[exif]: images} if images else {}


def orientation_hint(header: Header, exif: Exif, *, fits: tuple[float | None, float | None] | None = None) -> str:
    """Return what a message about a size or a box adds for an image that carries an orientation; empty for any other.

    fits: height and width that are written elsewhere; the hint is empty unless the other choice gives them.
    """
    other = _OTHER[exif]
    if header.orientation == 1 or (fits is not None and fits != size_of(header, other)):
        return ""
    taken = "turned as" if exif == "apply" else "not turned, though"
    return f"; the image is {taken} its EXIF orientation {header.orientation} says: data.exif={other} does otherwise"
