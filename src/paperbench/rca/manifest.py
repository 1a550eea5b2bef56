"""Files of images listed in a CSV manifest, one line for each mask, and CSV files with a header."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from paperbench.config.paths import expanded
from paperbench.data.layout import read_text
from paperbench.errors import ConfigError, DataError
from paperbench.rca.case_files import Entry, Files
from paperbench.rca.config import RcaEstimate

COLUMNS = ("role", "case", "image", "segmenter", "mask", "truth")
ROLES = ("case", "reference", "calibration")


def from_manifest(config: RcaEstimate) -> Files:
    """Return the files of `manifest`. Raises ConfigError for other keys beside it, DataError with all its mistakes."""
    given = [key for key in ("images", "masks", "truth") if getattr(config, key)]
    given += [f"reference.{key}" for key in ("images", "masks") if getattr(config.reference, key)]
    if given:
        raise ConfigError(f"manifest={config.manifest} names all files; leave out {', '.join(given)}")
    path = expanded(config.manifest)
    entries: dict[tuple[str, str], Entry] = {}
    segmenters: dict[str, None] = {}
    mistakes: list[str] = []
    for line, row in read_rows(path, needed=("role", "case", "image"), known=COLUMNS):
        try:
            _take(row, path.parent, entries, segmenters)
        except DataError as error:
            mistakes.append(f"{path}:{line}: {error}")
    for (role, name), entry in entries.items():
        if role in ("reference", "calibration") and entry.truth is None:
            mistakes.append(f"{path}: {role} {name} has no truth")
        if role != "reference" and not entry.masks:
            mistakes.append(f"{path}: {role} {name} has no mask")
    by_role = {role: [e for (r, _), e in sorted(entries.items()) if r == role] for role in ROLES}
    mistakes += [f"{path}: has no row of role {role}" for role in ("case", "reference") if not by_role[role]]
    if config.calibration.kind == "labelled" and not by_role["calibration"]:
        mistakes.append(f"{path}: calibration.kind=labelled needs rows of role calibration")
    if mistakes:
        more = [f"and {len(mistakes) - 20} more"] if len(mistakes) > 20 else []
        raise DataError("\n".join([*mistakes[:20], *more]))
    return Files(
        cases=by_role["case"],
        references=by_role["reference"],
        calibration=by_role["calibration"] if config.calibration.kind == "labelled" else [],
        segmenters=tuple(segmenters),
        where=config.manifest,
    )


def _take(
    row: Mapping[str, str], base: Path, entries: dict[tuple[str, str], Entry], segmenters: dict[str, None]
) -> None:
    """Add one row of the manifest; a case has one for each of its segmenters."""
    role, name = row["role"], row["case"]
    if role not in ROLES:
        raise DataError(f"role {role!r}; it is one of {', '.join(ROLES)}")
    paths = {key: base / expanded(row[key]) for key in ("image", "mask", "truth") if row.get(key)}
    for key in ("image", *paths):
        # Unlike Path.is_file, this answers for names that no file can have.
        if key not in paths or not os.path.isfile(paths[key]):  # noqa: PTH113
            raise DataError(f"{key} {row.get(key) or 'is empty'}: no such file")
    entry = entries.setdefault((role, name), Entry(name=name, image=paths["image"]))
    if entry.image != paths["image"]:
        raise DataError(f"case {name} has two images, {entry.image} and {paths['image']}")
    truth = paths.get("truth") or (paths.get("mask") if role == "reference" else None)
    if entry.truth and truth and entry.truth != truth:
        raise DataError(f"case {name} has two truths, {entry.truth} and {truth}")
    entry.truth = entry.truth or truth
    if role != "reference" and "mask" in paths:
        segmenter = row.get("segmenter") or "masks"
        if segmenter in entry.masks:
            raise DataError(f"case {name} has two masks of {segmenter}")
        entry.masks[segmenter] = paths["mask"]
        if role == "case":
            segmenters.setdefault(segmenter)


def read_rows(path: Path, *, needed: Sequence[str], known: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return line numbers and rows of a CSV file with a header. Raises DataError for a missing file or column."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        columns = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in needed if name not in columns]
        if missing:
            raise DataError(
                f"{path}: has no column {', '.join(missing)}; its columns are {', '.join(columns) or 'none'}, "
                f"known ones {', '.join(known)}{_separator(columns)}"
            )
        reader.fieldnames = columns
        rows = []
        for row in reader:
            values = {k: v.strip() for k, v in row.items() if isinstance(k, str) and isinstance(v, str)}
            if len(values) < len(columns) or None in row:
                raise DataError(
                    f"{path}:{reader.line_num}: has another number of fields than the header, {len(columns)}"
                )
            rows.append((reader.line_num, values))
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path}: holds no row")
    return rows


def _separator(columns: Sequence[str]) -> str:
    """Text for a message about a header that another character than the comma separates."""
    names = {";": "semicolons", "\t": "tabs", "|": "bars"}
    found = next((name for mark, name in names.items() if len(columns) == 1 and mark in columns[0]), "")
    return f"; {found} separate them: save the file with commas, and numbers with a decimal point" if found else ""
