"""Reproductions that are kept: `<folder>/<paper>/<table>/<scale>/`, written by `paperbench reproduce … --export FOLDER`.

`reproduction.json` is the document of the table, with `made`: by which commit, on which machine, when, in how many hours.
`runs.json` has the metrics of every run that gave a number, without weights: what a reader needs to check the table. The folder
`results/` of the program's repository travels with the program. What is there was made elsewhere: it is shown beside a table, never
counted as made here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from paperbench.config.explain import look_up
from paperbench.config.paths import shipped_results, short
from paperbench.engine.files import explain_os_errors, write_json
from paperbench.engine.metriclog import read as read_log
from paperbench.errors import ConfigError, DataError
from paperbench.records.record import RunRecord, read_run
from paperbench.report.preparing import Prepared
from paperbench.report.reproduction_document import Document, cells_of, check, verdict_of
from paperbench.report.verdict import Verdict
from paperbench.sweeps.plan import Member

DOCUMENT, RUNS = "reproduction.json", "runs.json"
SCHEMA_VERSION = 1
_PACKAGES = ("torch", "torchvision", "numpy")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A reproduction as it was exported. `key` is its folder below `results/`: paper, table and scale."""

    key: str
    document: Document
    runs: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def made(self) -> Mapping[str, Any]:
        return self.document["made"]

    @property
    def numbers(self) -> int:
        """The published numbers beside which there is one of ours."""
        return sum(cell["published"] is not None and cell["n"] > 0 for _, _, cell in run_cells(self.document))


def export(prepared: Prepared, document: Document, folder: Path) -> Path | None:
    """Write a table and the metrics of its runs below `folder`; return where, or None where no run has given a number yet.

    Raises `ConfigError` where the table in `folder` has numbers that this one lacks: it was made by other runs, which are not here.
    """
    members = _members(prepared)
    kept = _as_kept(document, {path: _name(member) for path, member in members.items()})
    used = {value["run"] for _, _, cell in run_cells(kept) for value in cell["values"]}
    if not used:
        return None
    records = {_name(m): (m, read_run(m.directory, name=m.hash)) for m in members.values() if _name(m) in used}
    runs = [_run(name, *found, _curve_metrics(prepared, found[0])) for name, found in sorted(records.items())]
    kept["made"] = made_by([record for _, record in records.values()])
    target = folder / prepared.layout.name / prepared.directory.name
    _refuse_loss(target, kept)
    with explain_os_errors(target):
        target.mkdir(parents=True, exist_ok=True)
    write_json(target / RUNS, {"schema_version": SCHEMA_VERSION, "runs": runs})
    write_json(target / DOCUMENT, kept)
    read(target, folder)
    return target


def read_all(folder: Path) -> list[Kept]:
    """Return every reproduction below `folder` by name; none where there is no such folder. Raises `DataError` for a faulty one."""
    return [read(file.parent, folder) for file in sorted(folder.glob(f"*/*/*/{DOCUMENT}"))]


def read(target: Path, folder: Path) -> Kept:
    """Return the reproduction in the folder `target` below `folder`. Raises `DataError` with what does not fit together in it."""
    try:
        document = json.loads((target / DOCUMENT).read_text(encoding="utf-8"))
        runs = {run["name"]: run for run in json.loads((target / RUNS).read_text(encoding="utf-8"))["runs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{short(target)} holds no exported reproduction: {error}; export it again") from error
    check(target / DOCUMENT, document)
    if faults := list(_faults(document, runs)):
        raise DataError(f"{short(target / DOCUMENT)}: {'; '.join(faults[:3])}; export it again")
    return Kept(key=target.relative_to(folder).as_posix(), document=document, runs=runs)


def made_in_words(made: Mapping[str, Any]) -> str:
    """Return `commit 0123456 on Z80, 2 cores; 2026-11-30; 12 runs, 3.4 hours`."""
    commits = ", ".join(commit[:7] for commit in made["commits"]) or "unknown"
    changed = " with local changes" if made["local_changes"] else ""
    days = made["first_day"] if made["first_day"] == made["last_day"] else f"{made['first_day']} to {made['last_day']}"
    hours = made["seconds"] / 3600
    took = f"{hours:.1f} hours" if hours >= 1 else f"{made['seconds'] / 60:.0f} minutes"
    return (
        f"commit{'s' if len(made['commits']) > 1 else ''} {commits}{changed} on {'; '.join(made['machines'])}; {days}; "
        f"{made['runs']} run{'' if made['runs'] == 1 else 's'}, {took}"
    )


def run_cells(document: Document) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield row, column and cell of the numbers that runs made, without the comparisons of two rows."""
    compared = {row["row"] for row in document["rows"] if row.get("kind") == "comparison"}
    return ((row, column, cell) for row, column, cell in cells_of(document) if row not in compared)


def elsewhere(prepared: Prepared, document: Document | None) -> Kept | None:
    """Return the kept table if it has numbers that `document`, the table as it was made here (None: not at all), lacks.

    Those of other overrides are another table. Raises `DataError` for a faulty one.
    """
    folder = shipped_results()
    target = folder / prepared.layout.name / prepared.directory.name
    if not (target / DOCUMENT).is_file():
        return None
    kept = read(target, folder)
    here = set() if document is None else _places(document)
    return kept if _places(kept.document) - here else None


def _places(document: Document) -> set[tuple[str, str]]:
    return {(row, column) for row, column, cell in run_cells(document) if cell["n"] > 0}


# --- what is written --------------------------------------------------------------------------------------------------


def _members(prepared: Prepared) -> dict[str, Member]:
    """Return every run by its folder as the document names it."""
    found = [member for placed in prepared.cells for member in placed.runs.values()]
    return {os.path.relpath(member.directory, prepared.directory): member for member in found}


def _name(member: Member) -> str:
    return f"{member.request.experiment}/{member.hash}"


def _as_kept(document: Document, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy in which runs have their names in place of folders of this machine."""
    kept = _without(f"{Path.cwd()}{os.sep}", dict(document))
    for _, _, cell in cells_of(kept):
        for value in cell["values"]:
            value["run"] = names.get(value["run"])
    return kept


def _without(place: str, value: Any) -> Any:
    """Return a copy of a document whose texts name no files below `place` but from there."""
    if isinstance(value, str):
        return value.replace(place, "")
    if isinstance(value, Mapping):
        return {key: _without(place, part) for key, part in value.items()}
    return [_without(place, part) for part in value] if isinstance(value, list | tuple) else value


def _run(name: str, member: Member, record: RunRecord, curve: Sequence[str]) -> dict[str, Any]:
    environment, results = record.environment, record.results
    git = environment.get("git") or {}
    batch = int(look_up(member.composed.resolved, "train.batch_size", 1))
    return {
        "name": name,
        "overrides": list(member.request.overrides),
        "seed": record.seed,
        "state": record.state,
        "step": record.step,
        "steps": record.steps,
        "seconds": record.seconds,
        "commit": git.get("commit"),
        "local_changes": bool(git.get("diff")),
        "machine": _machine(environment),
        "threads": environment.get("threads"),
        "packages": {key: environment.get("packages", {}).get(key) for key in _PACKAGES},
        "started": environment.get("started"),
        "updated": record.updated,
        "device": results.get("device") or environment.get("device"),
        "precision": results.get("precision"),
        "data": record.data,
        "metrics": dict(results.get("metrics") or {}),
        "curve": [
            {"step": entry["step"], "samples": entry["step"] * batch, **values}
            for entry in (read_log(member.directory / "metrics.jsonl") if curve else ())
            if (values := {key: entry[key] for key in curve if isinstance(entry.get(key), int | float)})
        ],
    }


def _machine(environment: Mapping[str, Any]) -> str:
    return f"{environment.get('cpu') or 'unknown processor'}, {environment.get('cores') or '?'} cores"


def _curve_metrics(prepared: Prepared, member: Member) -> list[str]:
    """Return the metrics that some cell reads on the curve of a run."""
    found = {
        placed.cell.metric: None
        for placed in prepared.cells
        if placed.cell.samples is not None and any(run.hash == member.hash for run in placed.runs.values())
    }
    return list(found)


def made_by(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return who made runs: commits, machines, days, their number and seconds; `made_in_words` says it."""
    environments = [record.environment for record in records]
    git = [environment.get("git") or {} for environment in environments]
    days = sorted(
        text[:10]
        for record in records
        for text in (str(record.environment.get("started") or ""), record.updated)
        if text
    )
    return {
        "commits": sorted({str(state["commit"]) for state in git if state.get("commit")}),
        "local_changes": any(state.get("diff") for state in git),
        "machines": sorted({_machine(environment) for environment in environments}),
        "first_day": days[0] if days else "",
        "last_day": days[-1] if days else "",
        "runs": len(records),
        "unfinished": sum(not record.done for record in records),
        "seconds": round(sum(record.seconds or 0 for record in records)),
    }


def _refuse_loss(target: Path, kept: Document) -> None:
    if not (target / DOCUMENT).is_file():
        return
    try:
        before = json.loads((target / DOCUMENT).read_text(encoding="utf-8"))
        lost = _values(before) - _values(kept)
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # a file that cannot be read holds nothing to lose
    if lost:
        some = "; ".join(sorted({f"{row}, {column}, seed {seed}" for row, column, seed in lost})[:3])
        raise ConfigError(
            f"--export: {short(target)} has {len(lost)} values whose runs are not here ({some}); make them, or export to another "
            "folder"
        )


def _values(document: Document) -> set[tuple[str, str, Any]]:
    return {(row, column, value["seed"]) for row, column, cell in run_cells(document) for value in cell["values"]}


# --- what is read -----------------------------------------------------------------------------------------------------


def _faults(document: Document, runs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what does not fit together: numbers that their runs did not measure, means of other values, no word of who made it."""
    missing = [
        key for key in ("commits", "machines", "first_day", "seconds", "runs") if key not in document.get("made", {})
    ]
    if missing:
        yield f"made: {', '.join(missing)} missing"
    for row, column, cell in run_cells(document):
        where = f"{row}, {column}"
        if verdict_of(cell) not in set(Verdict):
            yield f"{where}: {cell['verdict']!r} is no verdict"
        values = [value["value"] for value in cell["values"]]
        if values and not math.isclose(cell["mean"], fmean(values), rel_tol=1e-9, abs_tol=1e-12):
            yield f"{where}: the mean {cell['mean']} is not that of its values"
        for value in cell["values"]:
            run = runs.get(str(value["run"]))
            if run is None:
                yield f"{where}: {RUNS} has no run {value['run']}"
            elif run["seed"] != value["seed"] or not _is_measured(cell, value["value"], run):
                yield f"{where}, seed {value['seed']}: {value['value']} was not measured by {value['run']}"


def _is_measured(cell: Mapping[str, Any], value: float, run: Mapping[str, Any]) -> bool:
    metric, factor = cell["metric"], cell.get("factor", 1.0)
    measured = [run["metrics"].get(metric), *(point.get(metric) for point in run["curve"])]
    return any(
        isinstance(found, int | float) and math.isclose(found * factor, value, rel_tol=1e-9) for found in measured
    )
