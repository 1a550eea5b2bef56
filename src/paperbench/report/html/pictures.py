"""Pictures of runs inside the page: encoded anew, each within its share of a budget, so that the page stays small.

What does not fit, or cannot be read, is counted and named; nothing is dropped in silence.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from paperbench.engine.first_look import read_first_look
from paperbench.engine.processors import usable_cores
from paperbench.records.record import RunRecord

BUDGET = 2_600_000
"""Bytes of all pictures of a page before base64, which adds a third: with tables and curves the page stays below 5 MB."""

MOST_OF_A_RUN, MOST_OF_RUNS = 60, 24
_MOST_PIXELS = 60_000_000
"""A picture larger than this is not even opened: a small file can hold one that fills the memory."""

_LADDER: tuple[tuple[int, int], ...] = ((1600, 86), (1200, 80), (900, 76), (640, 70), (420, 60))
"""(longest side in pixels, quality), the best first."""

_STEP_DOWN = 0.6
"""About what a rung's bytes are of those of the rung above: rungs that this leaves hopeless are not attempts."""

_DRAWN_ANEW = frozenset({"losses"})
"""Figures whose content the page draws itself, from the same numbers."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture as WebP in base64. `width` and `height` are those of the encoded one."""

    caption: str
    source: str
    data: str
    width: int
    height: int

    @property
    def size(self) -> int:
        return len(self.data)


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures, and what was left out, in words."""

    pictures: tuple[Picture, ...]
    left_out: tuple[str, ...]
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture file with its caption; `source` names it to a reader."""

    file: Path
    caption: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The pictures that a report opens with, under their title."""

    title: str
    gallery: Gallery


def first_look(run: RunRecord, *, budget: int = BUDGET) -> Opening:
    """Return the pictures that the run lists as those to look at first, in its order; none for most runs."""
    listed = read_first_look(run.directory)
    if listed is None:
        return Opening(title="", gallery=Gallery(pictures=(), left_out=()))
    inside = {file.resolve(): file for file in run.figures()}
    wanted = [
        _picture_file(run, inside[place], look.caption)
        for look in listed.looks
        if (place := (run.directory / look.picture).resolve()) in inside
    ]
    return Opening(title=listed.title, gallery=encode(wanted, budget=budget, most=MOST_OF_A_RUN))


def of_run(run: RunRecord, *, budget: int = BUDGET, drawn: bool) -> Gallery:
    """Return the pictures of one run, without those of curves if the page draws them itself (`drawn`)."""
    wanted = [_picture_file(run, file, caption_of(file)) for file in _figures(run, drawn=drawn)]
    return encode(wanted, budget=budget, most=MOST_OF_A_RUN)


def of_runs(
    runs: Sequence[RunRecord], names: Callable[[RunRecord], str], *, budget: int = BUDGET, drawn: bool
) -> Gallery:
    """Return the pictures of several runs, those of one name next to each other, at least one of each name."""
    by_name: dict[str, list[PictureFile]] = {}
    for run in runs:
        for file in _figures(run, drawn=drawn):
            key = file.relative_to(run.directory).as_posix()
            by_name.setdefault(key, []).append(_picture_file(run, file, f"{caption_of(file)}: {names(run)}"))
    each = max(1, MOST_OF_RUNS // max(1, len(by_name)))
    wanted = [entry for entries in by_name.values() for entry in entries[:each]]
    gallery = encode(wanted, budget=budget, most=MOST_OF_RUNS)
    more = sum(map(len, by_name.values())) - len(wanted)
    left_out = gallery.left_out
    if more:
        left_out = (*left_out, f"{more} more pictures of the same kinds lie in the runs' figures folders")
    return Gallery(pictures=gallery.pictures, left_out=left_out)


def encode(wanted: Sequence[PictureFile], *, budget: int, most: int) -> Gallery:
    """Encode every file within an equal share of the bytes; small pictures leave more to the others."""
    shown, beyond = wanted[:most], wanted[most:]
    left_out = [f"{len(beyond)} more pictures, {beyond[0].source} and those after it"] if beyond else []
    share = budget // max(1, len(shown))
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:  # encoding leaves the interpreter to others
        attempts = list(pool.map(lambda entry: _encode(entry, share), shown))
    spare = budget - sum(len(encoded.data) for encoded in attempts)
    unfit = sum(encoded.too_large for encoded in attempts)
    pictures: list[Picture] = []
    for entry, encoded in zip(shown, attempts, strict=True):
        if encoded.too_large:
            encoded = _encode(entry, spare // unfit)
            spare, unfit = spare - len(encoded.data), unfit - 1
        if not encoded.data:
            left_out.append(f"{entry.source}: {encoded.fault or 'too large for its share of the page'}")
            continue
        data = base64.b64encode(encoded.data).decode()
        pictures.append(
            Picture(caption=entry.caption, source=entry.source, data=data, width=encoded.width, height=encoded.height)
        )
    return Gallery(pictures=tuple(pictures), left_out=tuple(left_out))


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    """An encoded picture, or none: then `fault` says why, and is empty where it is only too large."""

    data: bytes = b""
    width: int = 0
    height: int = 0
    fault: str = ""

    @property
    def too_large(self) -> bool:
        return not self.data and not self.fault


def _encode(entry: PictureFile, most: int) -> _Encoded:
    """Encode the picture in at most `most` bytes, with the best quality that fits."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(entry.file) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    return _Encoded(fault=f"{opened.width} x {opened.height} pixels are too many to show")
                picture = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return _Encoded(fault=f"cannot be read ({(str(error).splitlines() or [type(error).__name__])[0]})")
    if picture.mode == "RGBA":  # drawn for white paper: on a dark page it must bring its paper along
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture).convert("RGB")
    picture = _enlarge(picture)
    expected = 0.0
    for rung, (longest, quality) in enumerate(_LADDER):
        last = rung == len(_LADDER) - 1
        if expected > most and not last:
            expected *= _STEP_DOWN
            continue
        candidate = _reduce(picture, longest)
        data = _webp(candidate, quality)
        if len(data) <= most:
            return _Encoded(data=data, width=candidate.width, height=candidate.height)
        expected = len(data) * _STEP_DOWN
    return _Encoded()


def _reduce(picture: Image.Image, longest: int) -> Image.Image:
    """Return the picture, reduced if its longest side exceeds `longest`."""
    if max(picture.size) <= longest:
        return picture
    scale = longest / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _enlarge(picture: Image.Image) -> Image.Image:
    """Return small pictures, such as digits, in whole multiples of their size: a browser would blur them."""
    factor = 240 // max(1, *picture.size)
    if factor < 2:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _webp(picture: Image.Image, quality: int) -> bytes:
    """Encode as WebP: lossless for drawings of few colours, lossy otherwise."""
    out = io.BytesIO()
    if picture.getcolors(256) is not None:
        picture.save(out, "WEBP", lossless=True, quality=60, method=3)
    else:
        picture.save(out, "WEBP", quality=quality, method=3)
    return out.getvalue()


def _figures(run: RunRecord, *, drawn: bool) -> list[Path]:
    listed = read_first_look(run.directory)
    opening = {run.directory / look.picture for look in listed.looks} if listed else set()
    return [file for file in run.figures() if file not in opening and not (drawn and file.stem in _DRAWN_ANEW)]


def _picture_file(run: RunRecord, file: Path, caption: str) -> PictureFile:
    return PictureFile(file=file, caption=caption, source=f"{run.name}/{file.relative_to(run.directory).as_posix()}")


def caption_of(file: Path) -> str:
    """Return `precision recall` for `figures/precision_recall.png`."""
    return " ".join(file.stem.replace("_", " ").replace("-", " ").split())
