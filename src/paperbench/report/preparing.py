"""From a layout to the runs it takes: composed, checked, held against the published numbers, and planned as one sweep.

Nothing is written here, and every mistake of every run is named before the first one starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paperbench.config import _hydra
from paperbench.config.compose import Composed, compose
from paperbench.config.paths import short
from paperbench.config.suggest import nearest
from paperbench.config.validate import config_hash, incidental
from paperbench.errors import ConfigError
from paperbench.report.conditions import departures
from paperbench.report.layout import Cell, Layout, merged, override_key
from paperbench.report.layoutfile import SCALES
from paperbench.report.verdict import Departures
from paperbench.sweep.plan import HASH_DIGITS, Member, Request, Sweep, plan

KIND = "reproduction"

_Key = tuple[str, tuple[str, ...]]
"""Experiment and overrides, the seed left out."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A cell with the run of each seed, and how those runs depart from what the published number asks for."""

    cell: Cell
    runs: Mapping[int, Member]
    departures: Departures


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A table at a scale, ready to be made. `overrides` are the user's own."""

    layout: Layout
    scale: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    cells: tuple[Placed, ...]
    sweep: Sweep

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
) -> Prepared:
    """Plans `layout` at `scale` with seeds 0, 1, … and the user's overrides over the file's.

    Raises `ConfigError` with the mistakes of all runs, `DataError` where data are missing.
    """
    _refuse(layout, scale, overrides)
    with _hydra.remembered():
        return _prepare(layout, scale, layout.scale(scale).seeds if seeds is None else seeds, overrides, conf_dir)


def _prepare(layout: Layout, scale: str, count: int, overrides: Sequence[str], conf_dir: Path | None) -> Prepared:
    cells = layout.cells(scale)
    keys = [(cell.experiment, merged(cell.overrides, overrides)) for cell in cells]
    composed = _compose_all(dict.fromkeys(keys), layout, conf_dir)
    hashes = {key: [_hash(composed[key], seed) for seed in range(count)] for key in composed}
    requests: dict[str, Request] = {}
    for key in composed:
        for seed, digits in enumerate(hashes[key]):
            labels = {**_labels(key, keys, cells, layout), "seed": str(seed)}
            requests.setdefault(digits, Request(experiment=key[0], overrides=(*key[1], f"seed={seed}"), labels=labels))
    root = Path(next(iter(composed.values())).resolved["output"]["root"])
    sweep = plan(
        list(requests.values()), conf_dir=conf_dir, directory=root / _folder(layout, scale, overrides),
        name=layout.name, kind=KIND, overrides=overrides,
    )  # fmt: skip
    runs = _Runs(sweep)
    asked = _asked(cells, overrides, conf_dir)
    placed = [
        Placed(
            cell=cell,
            runs={seed: runs.of(key, seed, digits) for seed, digits in enumerate(hashes[key])},
            departures=departures(
                cell.published,
                composed[key].resolved,
                when=layout.when,
                declared=cell.deviations,
                asked=asked[index].resolved if asked else None,
                left_to_user=layout.entry.left_to_user,
                samples=cell.samples,
            ),
        )
        for index, (cell, key) in enumerate(zip(cells, keys, strict=True))
    ]
    return Prepared(
        layout=layout,
        scale=scale,
        seeds=tuple(range(count)),
        overrides=tuple(overrides),
        cells=tuple(placed),
        sweep=sweep,
    )


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


def _compose_all(keys: Mapping[_Key, None], layout: Layout, conf_dir: Path | None) -> dict[_Key, Composed]:
    composed: dict[_Key, Composed] = {}
    mistakes: dict[str, None] = {}
    for experiment, texts in keys:
        try:
            composed[experiment, texts] = compose(experiment, texts, conf_dir=conf_dir)
        except ConfigError as error:
            mistakes.update(dict.fromkeys(error.mistakes))
    if mistakes:
        raise ConfigError(*mistakes, f"(in the runs of {layout.name}, {short(layout.file)})")
    return composed


def _hash(composed: Composed, seed: int) -> str:
    return config_hash({**composed.resolved, "seed": seed})[:HASH_DIGITS]


class _Runs:
    """The members of a sweep, found again by what was asked for."""

    def __init__(self, sweep: Sweep) -> None:
        self._by_hash = {member.hash: member for member in sweep.members}
        self._by_request = {(member.request.experiment, member.request.overrides): member for member in sweep.members}

    def of(self, key: _Key, seed: int, digits: str) -> Member:
        """By its hash, unless an experiment's own values follow from its seed and the hash is another than it seemed."""
        return self._by_hash.get(digits) or self._by_request[key[0], (*key[1], f"seed={seed}")]


def _labels(key: _Key, keys: Sequence[_Key], cells: Sequence[Cell], layout: Layout) -> dict[str, str]:
    """What tells a run from the others of its table: the first cell that it fills, and how many more."""
    filled = [cell for cell, other in zip(cells, keys, strict=True) if other == key]
    rows, columns = (list(dict.fromkeys(names)) for names in ([c.row for c in filled], [c.column for c in filled]))
    labels = {"row": rows[0] if len(rows) == 1 else f"{rows[0]} (and {len(rows) - 1} more)"}
    if len(columns) < len(layout.columns):
        labels["column"] = columns[0] if len(columns) == 1 else f"{columns[0]} (and {len(columns) - 1} more)"
    return labels


def _folder(layout: Layout, scale: str, overrides: Sequence[str]) -> Path:
    """`reproduce/<paper>/<table>/<scale>`; what the user's overrides change goes beside it, not over it."""
    texts = sorted(text for text in overrides if not incidental(override_key(text)))
    suffix = f"-{hashlib.sha256(' '.join(texts).encode()).hexdigest()[:8]}" if texts else ""
    return Path("reproduce") / layout.name / f"{scale}{suffix}"


def _asked(cells: Sequence[Cell], overrides: Sequence[str], conf_dir: Path | None) -> list[Composed] | None:
    """Every cell as the file alone has it, on the data and machine that the user chose; None if nothing else was changed.

    Which data a number was made on is judged by the number's conditions; everything else by comparison with this.
    """
    kept = [text for text in overrides if override_key(text) == "data" or incidental(override_key(text))]
    if len(kept) == len(overrides):
        return None
    known: dict[_Key, Composed] = {}
    keys = [(cell.experiment, merged(cell.overrides, kept)) for cell in cells]
    for experiment, texts in dict.fromkeys(keys):
        known[experiment, texts] = compose(experiment, texts, conf_dir=conf_dir)
    return [known[key] for key in keys]
