"""The folder of a data set below `data.root`, and the error for a missing one."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Final

from paperbench.catalog import DATASETS
from paperbench.config.commands import command
from paperbench.config.paths import expanded
from paperbench.errors import DataError

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def data_root(root: str | Path | None) -> Path:
    """`root`, else `$PAPERBENCH_DATA`, else `./data`."""
    return expanded(root or os.environ.get("PAPERBENCH_DATA") or "data")


def missing(name: str, root: Path, wanted: str) -> DataError:
    """The error for a data set that is not below `root`: layout expected, what is there, how to get it.

    `wanted` names what was not found.
    """
    spec = DATASETS[name]
    lines = [
        f"{root}: no data set '{name}' here: {wanted}",
        f"  expected below data.root: {spec.layout}",
        f"  found: {contents(root)}",
    ]
    if spec.archives:
        lines.append(f"  to download it: {command('data', 'get', name, '--root', root)}")
    if spec.homepage:
        lines.append(f"  to get it by hand: {spec.homepage}")
    lines.append("  if it is elsewhere: data.root=DIR, or set PAPERBENCH_DATA")
    return DataError("\n".join(lines))


def contents(folder: Path) -> str:
    """What a folder holds, for a message: at most twelve names, or why there are none."""
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "a file, not a folder"
    try:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror})"
    if not names:
        return "an empty folder"
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def read_text(path: Path) -> str:
    """A small text file in UTF-8, without its byte order mark. Raises DataError for one that cannot be read or is no text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if content.startswith(_UTF_16):
        raise DataError(f"{path}: not a text file in UTF-8: it is in UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text file in UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def count_departure(part: str, found: int, published: int, *, what: str = "images") -> list[str]:
    """Return in words that a part of a data set has another number than the published one; nothing where it has that number."""
    return [] if found == published else [f"{part}: {found:,} of {published:,} {what}"]
