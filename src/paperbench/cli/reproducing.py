"""`paperbench reproduce`: the list of published tables, and one of them made and printed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.output import duration, folded_line, folded_table, line, print_table, table
from paperbench.cli.sweep_display import labelled, make_watcher
from paperbench.config.compose import OUTPUT_ROOT, output_root
from paperbench.config.paths import search_path, short
from paperbench.errors import EXIT_STOPPED, ConfigError
from paperbench.records.record import read_status
from paperbench.report import layout as layouts
from paperbench.report import reproductions
from paperbench.report.layout import override_key
from paperbench.report.layoutfile import SCALES
from paperbench.report.preparing import Prepared
from paperbench.report.reproduction import DOCUMENT, make, plan_reproduction, targets_of
from paperbench.report.reproduction_document import display_table
from paperbench.report.reproductions import AtScale, Listed, time_of
from paperbench.report.results import Kept, elsewhere, export, made_in_words, run_cells
from paperbench.sweeps.launch import SweepOptions
from paperbench.sweeps.launchers.base import DEFAULT
from paperbench.sweeps.plan import Member
from paperbench.sweeps.watch import MemberStatus


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions):
    """The options of `paperbench reproduce`."""

    scale: str | None = None
    seeds: int | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    export: Path | None = None
    dry_run: bool = False
    json_output: bool = False
    conf_dir: Path | None = None


def reproduce(name: str | None, overrides: Sequence[str], options: Options) -> None:
    """Without a name, or with that of a paper, the list; else the table of that name."""
    if name is not None and "=" in name:
        name, overrides = None, (name, *overrides)
    known = layouts.names(search_path(options.conf_dir))
    if name is None or (name not in known and any(other.startswith(f"{name}/") for other in known)):
        _list(name, overrides, options)
        return
    prepared, settings = plan_reproduction(
        name,
        overrides,
        scale=options.scale,
        seeds=options.seeds,
        launcher=options.launcher or DEFAULT,
        conf_dir=options.conf_dir,
        rows=options.rows,
        columns=options.columns,
    )
    if options.dry_run:
        _print_plan(prepared, options)
    else:
        _make(prepared, settings, options)


# --- the list ---------------------------------------------------------------------------------------------------------


def _list(paper: str | None, overrides: Sequence[str], options: Options) -> None:
    found, mistakes = reproductions.listed(_root_for_list(overrides), options.conf_dir)
    found = [item for item in found if paper is None or item.name.startswith(f"{paper}/")]
    if options.json_output:
        if mistakes:
            raise ConfigError(*mistakes)
        emit_json([{**asdict(item), "file": str(item.file)} for item in found])
        return
    scales = [scale for scale in SCALES if any(_at(item, scale) for item in found)]
    folded_table(
        ("name", *scales, "what"),
        (
            [item.name, *(_cost(_at(item, scale)) for scale in scales), f"{item.table}. {item.caption}"]
            for item in found
        ),
    )
    line()
    line(
        "paperbench reproduce NAME [--scale smoke|short|paper]   (runs, time one after another if measured, what is done)"
    )
    for item in found:
        for at in item.scales:
            if at.elsewhere is not None:
                folded_line(
                    f"made elsewhere: {item.name}, scale={at.scale}, {at.elsewhere.numbers} numbers ({at.elsewhere.made})"
                )
    if mistakes:
        raise ConfigError(*mistakes)


def _root_for_list(overrides: Sequence[str]) -> Path:
    """Where runs lie. A list takes no other override: it composes nothing."""
    others = [text for text in overrides if override_key(text) != OUTPUT_ROOT]
    if others:
        raise ConfigError(
            *(f"{text}: belongs to `paperbench reproduce NAME`; a list takes output.root=DIR" for text in others)
        )
    return output_root(overrides)


def _at(item: Listed, scale: str) -> AtScale | None:
    return next((at for at in item.scales if at.scale == scale), None)


def _cost(at: AtScale | None) -> str:
    """`6 runs, 13:00, 2 done`."""
    if at is None:
        return ""
    time = "" if at.seconds is None else f", {duration(at.seconds)}"
    done = f", {at.done} done" if at.done else ", made elsewhere" if at.elsewhere else ""
    return f"{_count(at.runs, 'run')}{time}{done}"


# --- the plan ---------------------------------------------------------------------------------------------------------


def _print_plan(prepared: Prepared, options: Options) -> None:
    """`--dry-run`: the runs, what is done of them, and what the numbers will be worth."""
    targets = targets_of(prepared)
    members = [member for member in prepared.sweep.members if targets is None or member.hash in targets]
    states = {member.hash: read_status(member.directory).state for member in members}
    if options.json_output:
        emit_json(_plan_document(prepared, members, states))
        return
    layout = prepared.layout
    folded_line(
        f"{layout.name}, scale={prepared.scale}: {layout.table}. {layout.caption} (dry run, nothing is written)"
    )
    line(_cost_in_words(prepared, len(members)))
    keys = list(dict.fromkeys(key for member in members for key in member.request.labels))
    table(
        (*keys, "state", "run"),
        (
            (*(member.request.labels.get(key, "") for key in keys), states[member.hash], short(member.directory))
            for member in members
        ),
    )
    conditions = [item.conditions for item in prepared.cells]
    deviations = Counter(text for item in conditions for text in item.deviations)
    others = Counter(text for item in conditions for text in (*(f"choice: {c}" for c in item.choices), *item.remarks))
    if not deviations:
        line("every condition of the published numbers is met")
    for text, count in (*deviations.items(), *others.items()):
        folded_line(
            f"{'every number' if count == len(conditions) else f'{count} of {len(conditions)} numbers'}: {text}"
        )
    _print_elsewhere(elsewhere(prepared, None if "done" not in states.values() else _document_of(prepared)))


def _document_of(prepared: Prepared) -> dict[str, Any] | None:
    """Return the table as it was last written here."""
    try:
        return json.loads((prepared.directory / DOCUMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _print_elsewhere(kept: Kept | None) -> None:
    """Print a table that was made by other runs than those here, under a title that says so."""
    if kept is not None:
        line()
        line(f"made elsewhere, and not counted here: {made_in_words(kept.made)}")
        print_table(display_table(kept.document))


def _cost_in_words(prepared: Prepared, runs: int) -> str:
    seconds, machine = time_of(prepared.layout, prepared.scale, runs)
    said = f"{_count(runs, 'run')}, {_count(len(prepared.seeds), 'seed')}"
    if seconds is None:
        return f"{said}; time not measured"
    return f"{said}; {duration(seconds)} one after another on {machine}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _plan_document(prepared: Prepared, members: Sequence[Member], states: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": prepared.layout.name,
        "scale": prepared.scale,
        "seeds": len(prepared.seeds),
        "directory": str(prepared.directory),
        "runs": [
            {
                "experiment": member.request.experiment,
                "overrides": list(member.request.overrides),
                "labels": dict(member.request.labels),
                "directory": str(member.directory),
                "state": states[member.hash],
            }
            for member in members
        ],
        "cells": [
            {
                "row": item.cell.row,
                "column": item.cell.column,
                "metric": item.cell.metric,
                "conditions": asdict(item.conditions),
            }
            for item in prepared.cells
        ],
        "elsewhere": _elsewhere_document(elsewhere(prepared, None)),
        "dry_run": True,
    }


def _elsewhere_document(kept: Kept | None) -> dict[str, Any] | None:
    """Return who made the kept table, and its numbers."""
    if kept is None:
        return None
    numbers = [
        {"row": row, "column": column, "mean": cell["mean"], "n": cell["n"], "verdict": cell["verdict"]}
        for row, column, cell in run_cells(kept.document)
        if cell["n"] > 0
    ]
    return {"made": dict(kept.made), "numbers": numbers}


# --- the table --------------------------------------------------------------------------------------------------------


def _make(prepared: Prepared, settings: Any, options: Options) -> None:
    """Do what is missing, write the table and print it, whatever became of the runs."""
    watcher = make_watcher(json_output=options.json_output)
    document, outcome = make(prepared, settings, options=options, watcher=watcher)
    for result in outcome.members:
        if result.state == "failed":
            _print_failure(result)
    kept = elsewhere(prepared, document)
    exported = None
    if options.export is not None and outcome.exit_code != EXIT_STOPPED:
        exported = export(prepared, document, options.export)
    if options.json_output:
        emit_json(
            {
                **document,
                "directory": str(prepared.directory),
                "exit_code": outcome.exit_code,
                "elsewhere": _elsewhere_document(kept),
                **({"exported": str(exported)} if exported else {}),
            }
        )
    else:
        print_table(display_table(document))
        line(f"all numbers: {short(prepared.directory / DOCUMENT)}")
        if options.export is not None:
            line(f"exported: {short(exported)}" if exported else "exported: nothing, no run has given a number yet")
        _print_elsewhere(kept)
    if outcome.exit_code == EXIT_STOPPED:
        print_error("stopped; the same command goes on from here")
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _print_failure(result: MemberStatus) -> None:
    print_error(f"failed: {labelled(result.member.request.labels)}: {result.message}")
    for text in result.log_tail:
        print_error(f"  | {text}")
    print_error(f"  log: {short(result.member.directory / 'log.txt')}; --retry-failed tries it again")
