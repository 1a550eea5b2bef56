"""From a layout to the runs it takes: composed, checked, held against the published numbers, and planned as one sweep.

Nothing is written here, and every mistake of every run is named before the first one starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paperbench.config import _hydra
from paperbench.config.paths import installed_confs, search_path, short
from paperbench.config.suggest import nearest
from paperbench.config.validate import incidental
from paperbench.errors import ConfigError, DataError
from paperbench.report.judgement import reference, shipped_config
from paperbench.report.layout import Cell, Layout, merged, override_key
from paperbench.report.layoutfile import SCALES
from paperbench.report.verdict import Conditions, compare
from paperbench.sweeps.plan import Member, Request, Sweep, compose_members, plan

KIND = "reproduction"

_Key = tuple[str, tuple[str, ...]]
"""Experiment and overrides, the seed left out."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A cell with the run of each seed, and the conditions of those runs beside the published ones."""

    cell: Cell
    runs: Mapping[int, Member]
    conditions: Conditions


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A table at a scale, ready to be made. `overrides` are the user's own."""

    layout: Layout
    scale: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    cells: tuple[Placed, ...]
    sweep: Sweep
    selection: frozenset[tuple[str, str]] | None = None
    """Rows and columns of the cells that are to be made now; None: all. The others are shown as they stand."""

    @property
    def directory(self) -> Path:
        """Where the record and the tables are written."""
        return self.sweep.directory


def prepare(
    layout: Layout,
    scale: str,
    *,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    conf_dir: Path | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Prepared:
    """Plans `layout` at `scale` with seeds 0, 1, … and the user's overrides over the file's.

    `rows` and `columns` select the cells to make, by their names; empty: all.

    Raises `ConfigError` with the mistakes of all runs, `DataError` where data are missing.
    """
    _refuse(layout, scale, overrides)
    selection = layout.select(scale, rows, columns) if rows or columns else None
    with _hydra.remembered():
        prepared = _prepare(layout, scale, layout.scale(scale).seeds if seeds is None else seeds, overrides, conf_dir)
    return replace(prepared, selection=selection)


def _prepare(layout: Layout, scale: str, count: int, overrides: Sequence[str], conf_dir: Path | None) -> Prepared:
    cells = layout.cells(scale)
    keys = [(cell.experiment, merged(cell.overrides, overrides)) for cell in cells]
    places = [(key, seed) for key in dict.fromkeys(keys) for seed in range(count)]
    composed = dict(zip(places, _compose(places, keys, cells, layout, conf_dir), strict=True))
    root = Path(composed[places[0]].composed.resolved["output"]["root"])
    sweep = plan(
        list(composed.values()), directory=root / _folder(layout, scale, overrides),
        name=layout.name, kind=KIND, overrides=overrides,
    )  # fmt: skip
    members = {member.hash: member for member in sweep.members}
    shipped = _references(cells, layout, scale, overrides, conf_dir)
    placed = [
        Placed(
            cell=cell,
            runs={seed: members[composed[key, seed].hash] for seed in range(count)},
            conditions=compare(
                cell.published,
                composed[key, 0].composed.resolved,
                when=layout.when,
                declared=cell.deviations,
                shipped=found if isinstance(found, Mapping) else None,
                left_to_user=layout.entry.left_to_user,
                samples=cell.samples,
            )
            | Conditions(settings=(found,) if isinstance(found, str) else ()),
        )
        for cell, key, found in zip(cells, keys, shipped, strict=True)
    ]
    return Prepared(
        layout=layout,
        scale=scale,
        seeds=tuple(range(count)),
        overrides=tuple(overrides),
        cells=tuple(placed),
        sweep=sweep,
    )


def _compose(
    places: Sequence[tuple[_Key, int]],
    keys: Sequence[_Key],
    cells: Sequence[Cell],
    layout: Layout,
    conf_dir: Path | None,
) -> list[Member]:
    """Compose the run of every configuration and seed, each once."""
    requests = [
        Request(
            experiment=key[0],
            overrides=(*key[1], f"seed={seed}"),
            labels={**_labels(key, keys, cells, layout), "seed": str(seed)},
        )
        for key, seed in places
    ]
    try:
        return compose_members(requests, conf_dir)
    except ConfigError as error:
        raise ConfigError(*error.mistakes, f"(in the runs of {layout.name}, {short(layout.file)})") from None


def _refuse(layout: Layout, scale: str, overrides: Sequence[str]) -> None:
    if scale not in SCALES:
        near = nearest(scale, SCALES)
        raise ConfigError(
            f"--scale {scale}: no such scale. {'Nearest' if near else 'Scales'}: {', '.join(near or SCALES)}"
        )
    layout.scale(scale)
    options = {"seed": "--seeds N makes seeds 0 to N-1", "scale": "--scale NAME chooses it"}
    mistakes = [
        f"{text}: cannot be set here, {options[key]}" for text in overrides if (key := override_key(text)) in options
    ]
    if mistakes:
        raise ConfigError(*mistakes)


def _labels(key: _Key, keys: Sequence[_Key], cells: Sequence[Cell], layout: Layout) -> dict[str, str]:
    """What tells a run from the others of its table: the first cell that it fills, and how many more."""
    filled = [cell for cell, other in zip(cells, keys, strict=True) if other == key]
    rows, columns = (list(dict.fromkeys(names)) for names in ([c.row for c in filled], [c.column for c in filled]))
    labels = {"row": rows[0] if len(rows) == 1 else f"{rows[0]} (and {len(rows) - 1} more)"}
    if len(columns) < len({cell.column for cell in cells}):
        labels["column"] = columns[0] if len(columns) == 1 else f"{columns[0]} (and {len(columns) - 1} more)"
    return labels


def _folder(layout: Layout, scale: str, overrides: Sequence[str]) -> Path:
    """`reproduce/<paper>/<table>/<scale>`; what the user's overrides change goes beside it, not over it."""
    texts = sorted(text for text in overrides if not incidental(override_key(text)))
    suffix = f"-{hashlib.sha256(' '.join(texts).encode()).hexdigest()[:8]}" if texts else ""
    return Path("reproduce") / layout.name / f"{scale}{suffix}"


def _references(
    cells: Sequence[Cell], layout: Layout, scale: str, overrides: Sequence[str], conf_dir: Path | None
) -> list[Mapping[str, Any] | str | None]:
    """Return for every cell the configuration that it has as shipped, on the data and machine that the user chose.

    None where nothing can differ from it; a sentence where there is none. Which data a number was made on is judged by the number's
    conditions, everything else by comparison with this.
    """
    circumstances = [text for text in overrides if override_key(text) == "data" or incidental(override_key(text))]
    if len(circumstances) == len(overrides) and search_path(conf_dir) == installed_confs():
        return [None] * len(cells)
    return [_reference(cell, layout, scale, circumstances) for cell in cells]


def _reference(cell: Cell, layout: Layout, scale: str, circumstances: Sequence[str]) -> Mapping[str, Any] | str | None:
    if cell.published is None:
        return None
    found = reference(cell.published, scale, layout=layout.name)
    try:
        return shipped_config(found.cell if found is not None else cell, circumstances)
    except (ConfigError, DataError):
        return f"made by {short(layout.file)} and {cell.experiment}, which did not come with the program: nothing was compared"
