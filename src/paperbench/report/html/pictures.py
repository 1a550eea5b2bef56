"""Pictures of runs inside the page: encoded anew, each within its share of a budget, so that the page stays small.

What does not fit, or cannot be read, is counted and named; nothing is dropped in silence.
"""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from paperbench.runs.record import RunRecord

BUDGET = 2_600_000
"""Bytes of all pictures of a page before base64, which adds a third: with tables and curves the page stays below 5 MB."""

MOST_OF_A_RUN, MOST_OF_RUNS = 60, 24
_MOST_PIXELS = 60_000_000
"""A picture larger than this is not even opened: a small file can hold one that fills the memory."""

_LADDER: tuple[tuple[int, int], ...] = ((1600, 86), (1200, 80), (900, 76), (640, 70), (420, 60))
"""(longest side in pixels, quality), the best first."""

_STEP_DOWN = 0.6
"""About what a rung's bytes are of those of the rung above: rungs that this leaves hopeless are not tried."""

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
class Wanted:
    """A file to show under a caption; `source` names it to a reader."""

    file: Path
    caption: str
    source: str


def of_run(run: RunRecord, *, budget: int = BUDGET, drawn: bool) -> Gallery:
    """The pictures of one run; `drawn`: the page shows its curves already."""
    wanted = [_wanted(run, file, caption_of(file)) for file in _figures(run, drawn=drawn)]
    return encode(wanted, budget=budget, most=MOST_OF_A_RUN)


def of_runs(
    runs: Sequence[RunRecord], names: Callable[[RunRecord], str], *, budget: int = BUDGET, drawn: bool
) -> Gallery:
    """The pictures of several runs, those of the same name side by side; every run gets its first before any gets more."""
    by_name: dict[str, list[Wanted]] = {}
    for run in runs:
        for file in _figures(run, drawn=drawn):
            key = file.relative_to(run.directory).as_posix()
            by_name.setdefault(key, []).append(_wanted(run, file, f"{caption_of(file)}: {names(run)}"))
    room = max(1, MOST_OF_RUNS // max(1, len(by_name)))
    wanted = [entry for entries in by_name.values() for entry in entries[:room]]
    gallery = encode(wanted, budget=budget, most=MOST_OF_RUNS)
    more = sum(map(len, by_name.values())) - len(wanted)
    left_out = gallery.left_out
    if more:
        left_out = (*left_out, f"{more} more pictures of the same kinds lie in the runs' figures folders")
    return Gallery(pictures=gallery.pictures, left_out=left_out)


def encode(wanted: Sequence[Wanted], *, budget: int, most: int) -> Gallery:
    """Every file as well as an equal share of the bytes allows; what the small ones leave goes to the others."""
    shown, beyond = wanted[:most], wanted[most:]
    left_out = [f"{len(beyond)} more pictures, {beyond[0].source} and those after it"] if beyond else []
    share = budget // max(1, len(shown))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # encoding leaves the interpreter to others
        tried = list(pool.map(lambda entry: _encoded(entry, share), shown))
    spare = budget - sum(len(made.data) for made in tried)
    unfit = sum(made.too_large for made in tried)
    pictures: list[Picture] = []
    for entry, made in zip(shown, tried, strict=True):
        if made.too_large:
            made = _encoded(entry, spare // unfit)
            spare, unfit = spare - len(made.data), unfit - 1
        if not made.data:
            left_out.append(f"{entry.source}: {made.fault or 'too large for its share of the page'}")
            continue
        data = base64.b64encode(made.data).decode()
        pictures.append(
            Picture(caption=entry.caption, source=entry.source, data=data, width=made.width, height=made.height)
        )
    return Gallery(pictures=tuple(pictures), left_out=tuple(left_out))


@dataclass(frozen=True, kw_only=True)
class _Made:
    """An encoded picture, or none: then `fault` says why, and is empty where it is only too large."""

    data: bytes = b""
    width: int = 0
    height: int = 0
    fault: str = ""

    @property
    def too_large(self) -> bool:
        return not self.data and not self.fault


def _encoded(entry: Wanted, most: int) -> _Made:
    """The picture in at most `most` bytes, as good as that allows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(entry.file) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    return _Made(fault=f"{opened.width} x {opened.height} pixels are too many to show")
                picture = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return _Made(fault=f"cannot be read ({(str(error).splitlines() or [type(error).__name__])[0]})")
    if picture.mode == "RGBA":  # drawn for white paper: on a dark page it must bring its paper along
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture).convert("RGB")
    picture = _enlarged(picture)
    expected = 0.0
    for rung, (longest, quality) in enumerate(_LADDER):
        last = rung == len(_LADDER) - 1
        if expected > most and not last:
            expected *= _STEP_DOWN
            continue
        candidate = _fitted(picture, longest)
        data = _webp(candidate, quality)
        if len(data) <= most:
            return _Made(data=data, width=candidate.width, height=candidate.height)
        expected = len(data) * _STEP_DOWN
    return _Made()


def _fitted(picture: Image.Image, longest: int) -> Image.Image:
    """The picture, made smaller if it has to be."""
    if max(picture.size) <= longest:
        return picture
    scale = longest / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _enlarged(picture: Image.Image) -> Image.Image:
    """Pictures of a few pixels, such as digits, in whole multiples of theirs: a browser would blur them."""
    factor = 240 // max(1, *picture.size)
    if factor < 2:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _webp(picture: Image.Image, quality: int) -> bytes:
    """The smaller of a lossy and, for drawings of few colours, a lossless encoding."""
    out = io.BytesIO()
    if picture.getcolors(256) is not None:
        picture.save(out, "WEBP", lossless=True, quality=60, method=3)
    else:
        picture.save(out, "WEBP", quality=quality, method=3)
    return out.getvalue()


def _figures(run: RunRecord, *, drawn: bool) -> list[Path]:
    return [file for file in run.figures() if not (drawn and file.stem in _DRAWN_ANEW)]


def _wanted(run: RunRecord, file: Path, caption: str) -> Wanted:
    return Wanted(file=file, caption=caption, source=f"{run.name}/{file.relative_to(run.directory).as_posix()}")


def caption_of(file: Path) -> str:
    """`figures/precision_recall.png` -> `precision recall`."""
    return " ".join(file.stem.replace("_", " ").replace("-", " ").split())
