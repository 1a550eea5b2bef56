"""The subject of a report: a run, a sweep or a reproduction, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperbench.config.paths import expanded
from paperbench.errors import ConfigError
from paperbench.records.record import RunRecord, read_run
from paperbench.records.sweeps import RECORD as SWEEP
from paperbench.records.sweeps import SweepRecord, read_document, read_sweep
from paperbench.report import reproduction_document

REPRODUCTION = "reproduction.json"


@dataclass(frozen=True, kw_only=True)
class ReproductionRecord:
    """A `reproduction.json` and, where a `sweep.json` stands beside it, its runs."""

    directory: Path
    document: Mapping[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def name(self) -> str:
        return str(self.document.get("name") or self.directory.name)


Source = RunRecord | SweepRecord | ReproductionRecord


def load(path: Path) -> Source:
    """Read the run, sweep or reproduction in the folder `path`, which may also be named by one of its files.

    Raises `ConfigError` when it is none of the three, naming what was expected and what is there instead, and `DataError`
    when the record of a sweep or a reproduction is damaged.
    """
    path = expanded(path)
    folder = (
        path.parent if path.is_file() and path.name in (SWEEP, REPRODUCTION, "config.yaml", "results.json") else path
    )
    if not path.exists():
        raise ConfigError(f"{path}: no such folder; `paperbench runs` lists the runs there are")
    if (folder / REPRODUCTION).is_file() and path.name != SWEEP:
        return _read_reproduction(folder)
    if (folder / SWEEP).is_file():
        return read_sweep(folder)
    if (folder / "config.yaml").is_file():
        return read_run(folder, name=folder.resolve().name)
    raise ConfigError(
        f"{path}: neither a run (config.yaml) nor a sweep ({SWEEP}) nor a reproduction ({REPRODUCTION}){_there(folder)}"
    )


def _there(folder: Path) -> str:
    """Name the folders below that may have been meant."""
    if not folder.is_dir():
        return "; name the folder of one"
    markers = ("config.yaml", SWEEP, REPRODUCTION)
    try:
        below = sorted(
            {file.parent for mark in markers for file in (*folder.glob(f"*/{mark}"), *folder.glob(f"*/*/{mark}"))}
        )
    except OSError:
        below = []
    if not below:
        return "; `paperbench runs` lists the runs there are"
    others = f" and {len(below) - 3} more" if len(below) > 3 else ""
    return f"; below it: {', '.join(map(str, below[:3]))}{others}"


def _read_reproduction(folder: Path) -> ReproductionRecord:
    document = read_document(folder / REPRODUCTION, reproduction_document.READABLE)
    reproduction_document.check(folder / REPRODUCTION, document)
    runs = read_sweep(folder).runs if (folder / SWEEP).is_file() else ()
    return ReproductionRecord(directory=folder, document=document, runs=runs)
