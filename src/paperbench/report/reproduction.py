"""What a table's runs measured beside what the paper printed, as one document: `reproduction.json`.

The document holds every number in full and every reservation in words; the tables for people and for spreadsheets are drawn
from it (`reproduction_document`), and so is the report.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paperbench.config.explain import look_up
from paperbench.config.paths import search_path, short
from paperbench.config.suggest import nearest
from paperbench.engine.files import explain_os_errors, write_atomic, write_json
from paperbench.engine.metriclog import read as read_log
from paperbench.records.metrics import all_metrics
from paperbench.records.statistics import Paired, Summary, paired, summarise
from paperbench.report.layout import Cell, load
from paperbench.report.layoutfile import ComparisonEntry
from paperbench.report.preparing import KIND, Placed, Prepared, prepare
from paperbench.report.published import Published
from paperbench.report.reproduction_document import SCHEMA_VERSION, display_table, flat_table
from paperbench.report.tables import to_csv, to_markdown
from paperbench.report.verdict import Conditions, Verdict, judge, precision_choice
from paperbench.sweeps.launch import SweepOptions
from paperbench.sweeps.launchers.settings import compose_settings, split
from paperbench.sweeps.plan import Member
from paperbench.sweeps.run import SweepOutcome, run_sweep
from paperbench.sweeps.scheduler import Targets
from paperbench.sweeps.watch import MemberStatus, Watcher

DOCUMENT = "reproduction.json"
DEFAULT_SCALE = "short"
LOW, HIGH = "/low", "/high"
"""Endings of the metrics that hold the ends of an interval over test images, beside the metric itself."""

_OTHER_DIRECTION = "not the direction of the paper"

SAMPLES_SLACK = 0.02
"""Largest distance of a record from the wanted number of training samples, as a fraction of it."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One cell after its runs: values by seed in the paper's unit, and in words why others are missing.

    `runs` are the runs' folders, relative to the reproduction's.
    """

    placed: Placed
    values: Mapping[int, float]
    runs: Mapping[int, str]
    images: tuple[float, float] | None
    missing: tuple[str, ...]
    unfinished: tuple[str, ...]
    """Runs whose curves are read although they are not at their end."""
    conditions: Conditions
    """Those that were planned, with what the runs tell of themselves."""


def plan_reproduction(
    name: str,
    overrides: Sequence[str] = (),
    *,
    scale: str | None = None,
    seeds: int | None = None,
    launcher: str = "local",
    conf_dir: Path | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> tuple[Prepared, Any]:
    """Prepare the table `name` at a scale (default: `short`); returns it with the settings of its launcher.

    `rows` and `columns` select the cells that are made.
    `overrides` may set `launcher.KEY=VALUE` among the keys of the runs. For errors see `preparing.prepare`.
    """
    layout = load(name, conf_dir)
    own, others = split(overrides)
    settings = compose_settings(launcher, own, search_path(conf_dir))
    prepared = prepare(
        layout,
        scale or DEFAULT_SCALE,
        seeds=seeds,
        overrides=others,
        conf_dir=conf_dir,
        rows=rows,
        columns=columns,
    )
    sweep = replace(prepared.sweep, launcher=launcher, settings=tuple(own))
    return replace(prepared, sweep=sweep), settings


def make(
    prepared: Prepared, settings: Any = None, *, options: SweepOptions, watcher: Watcher
) -> tuple[dict[str, Any], SweepOutcome]:
    """Do what is missing of a reproduction and write its tables, whatever became of the runs; returns document and outcome."""
    outcome = run_sweep(
        prepared.sweep,
        launcher=prepared.sweep.launcher,
        settings=settings,
        jobs=options.jobs,
        watcher=watcher,
        retry_failed=options.retry_failed,
        fail_fast=options.fail_fast,
        stacked=options.stacked,
        targets=targets_of(prepared),
    )
    document = assemble(prepared, outcome.members)
    write(document, prepared.directory)
    return document, outcome


def targets_of(prepared: Prepared) -> Targets | None:
    """Return the runs that the selected cells still need, each with the step after which it may stop (0: its end); None: all.

    A run that is wanted for points of its curve alone goes as far as the last of them. It is not at its end then, and goes on from
    there when another point is asked for.
    """
    if prepared.selection is None:
        return None
    wanted: dict[str, list[int]] = {}
    for placed in prepared.cells:
        if (placed.cell.row, placed.cell.column) in prepared.selection:
            for member in placed.runs.values():
                step = _step_of(placed.cell, member)
                if not step or isinstance(_value(placed.cell, member, {}), str):
                    wanted.setdefault(member.hash, []).append(step)
    return {name: max(steps) if all(steps) else 0 for name, steps in wanted.items()}


def _step_of(cell: Cell, member: Member) -> int:
    """Return the step of a point on the curve of a run; 0 where only the end of the run will do."""
    seen = _seen(member)
    if cell.samples is None or (seen is not None and seen <= cell.samples):
        return 0
    return -(-cell.samples // int(look_up(member.composed.resolved, "train.batch_size", 1)))


def assemble(prepared: Prepared, results: Sequence[MemberStatus]) -> dict[str, Any]:
    """The document of `reproduction.json`, from how each run of the sweep stands."""
    by_hash = {result.member.hash: result for result in results}
    measured = [_measure(placed, by_hash, prepared) for placed in prepared.cells]
    rows: dict[str, dict[str, Any]] = {}
    overlapping = _not_told_apart(prepared.layout.comparisons, measured)
    for item in measured:
        cell = item.placed.cell
        row = rows.setdefault(cell.row, {"row": cell.row, "kind": "runs", "cells": {}})
        row["cells"][cell.column] = _cell(item, len(prepared.seeds), overlapping.get((cell.row, cell.column), ()))
    for comparison in prepared.layout.comparisons:
        rows[comparison.row] = _comparison(comparison, measured)
    cells = [cell for row in rows.values() for cell in row["cells"].values()]
    held = [Verdict(cell["verdict"]) for cell in cells if cell["published"] is not None]
    layout = prepared.layout
    beyond = _beyond(prepared)
    for row in rows.values():
        row["cells"] = {column: cell for column, cell in row["cells"].items() if column not in beyond}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "name": layout.name,
        "paper": layout.paper,
        "table": layout.table,
        "caption": layout.caption,
        "source": layout.source,
        "scale": prepared.scale,
        "seeds": len(prepared.seeds),
        "overrides": list(prepared.overrides),
        "columns": [column for column in layout.columns_at(prepared.scale) if column not in beyond],
        "rows": [row for row in rows.values() if row["cells"]],
        "remarks": [*_remarks(prepared, results), *_said_of_columns(beyond, prepared)],
        "is_reproduction": Verdict.WITHIN in held
        and set(held) <= {Verdict.WITHIN, Verdict.NO_TOLERANCE}
        and not any(_OTHER_DIRECTION in cell["remarks"] for cell in cells),
    }


def write(document: Mapping[str, Any], folder: Path) -> None:
    """`reproduction.json`, `table.md` and `table.csv` in the reproduction's folder, each whole or not at all."""
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DOCUMENT, document)
    write_atomic(folder / "table.md", to_markdown(display_table(document)))
    write_atomic(folder / "table.csv", to_csv(flat_table(document)))


# --- values -----------------------------------------------------------------------------------------------------------


def _measure(placed: Placed, by_hash: Mapping[str, MemberStatus], prepared: Prepared) -> Measured:
    values: dict[int, float] = {}
    missing: list[str] = []
    unfinished: list[str] = []
    precisions: dict[str, None] = {}
    departures: dict[str, None] = {}
    chosen: dict[str, list[int]] = {}
    images: tuple[float, float] | None = None
    cell = placed.cell
    for seed, member in placed.runs.items():
        result = by_hash.get(member.hash)
        done = result is not None and result.state == "done" and result.results is not None
        if not done and cell.samples is None:
            missing.append(f"seed {seed} is missing: {_why(result, member)}")
            continue
        # A curve is what its run has passed, whether or not the run is at its end.
        results = result.results if done and result is not None and result.results is not None else {}
        found = _value(cell, member, results)
        if isinstance(found, str):
            missing.append(f"seed {seed} is missing: {found if done else _why(result, member)}")
            continue
        if not done:
            state = result.state if result is not None else "not started"
            unfinished.append(
                f"the run of seed {seed} is not at its end ({state}): its curve is read as far as it came"
            )
        values[seed] = found * cell.factor
        images = _over_images(cell, results)
        if results.get("precision"):
            precisions[str(results["precision"])] = None
        departures |= dict.fromkeys(results.get("data_departures") or ())
        for setting in _chosen(member, results):
            chosen.setdefault(setting, []).append(seed)
    runs = {seed: os.path.relpath(placed.runs[seed].directory, prepared.directory) for seed in values}
    return Measured(
        placed=placed,
        values=values,
        runs=runs,
        images=images if len(values) == 1 else None,
        missing=tuple(missing),
        unfinished=tuple(unfinished),
        conditions=_as_computed(placed.conditions, list(precisions))
        | Conditions(data=tuple(departures), remarks=tuple(_said_of_chosen(chosen, list(values)))),
    )


def _chosen(member: Member, results: Mapping[str, Any]) -> list[str]:
    """Return what the run chose by itself, as one would type it: `optim.lr=0.01`."""
    metrics = results.get("metrics")
    if not metrics:  # not at its end: what it chose stands in its log
        records = read_log(member.directory / "metrics.jsonl")
        metrics = {name: value for record in records for name, value in record.items()}
    return [f"{spec.key}={metrics[spec.name]:g}" for spec in all_metrics().specs if spec.key and spec.name in metrics]


def _said_of_chosen(chosen: Mapping[str, Sequence[int]], seeds: Sequence[int]) -> Iterator[str]:
    for setting, having in chosen.items():
        which = "" if len(having) == len(seeds) else f" of seed {', '.join(map(str, having))}"
        yield f"{setting} was chosen by the run{'s' if len(having) > 1 else ''}{which}"


def _as_computed(planned: Conditions, precisions: Sequence[str]) -> Conditions:
    """Return the conditions with the precision that the runs computed in, in place of the one that was asked for."""
    if not precisions:
        return planned
    others = [text for text in planned.choices if not text.startswith("precision=")]
    return replace(planned, choices=(*others, *filter(None, map(precision_choice, precisions))))


def _why(result: MemberStatus | None, member: Member) -> str:
    if result is None or result.state == "not started":
        return "its run was not started"
    said = " ".join(result.message.split())
    return f"its run {short(member.directory)} {result.state}{f': {said}' if said else ''}"


def _value(cell: Cell, member: Member, results: Mapping[str, Any]) -> float | str:
    """The number, or why there is none."""
    metrics = results.get("metrics") or {}
    if cell.samples is not None:
        return _at_samples(cell.metric, cell.samples, member)
    if cell.metric not in metrics:
        if cell.absent:
            return cell.absent
        near = nearest(cell.metric, metrics)
        return f"{short(member.directory)} has no metric {cell.metric}" + (
            f"; nearest: {', '.join(near)}" if near else ""
        )
    value = metrics[cell.metric]
    return (
        float(value) if isinstance(value, int | float) else f"{cell.metric} of {short(member.directory)} is not finite"
    )


def _at_samples(metric: str, samples: int, member: Member) -> float | str:
    """The metric as it was recorded after about so many training samples."""
    batch = look_up(member.composed.resolved, "train.batch_size", 1)
    records = [
        (abs(record["step"] * batch - samples), record[metric])
        for record in read_log(member.directory / "metrics.jsonl")
        if isinstance(record.get(metric), int | float)
    ]
    if not records:
        return f"{short(member.directory)}/metrics.jsonl has no record of {metric}"
    distance, value = min(records)
    if distance > SAMPLES_SLACK * samples:
        return f"{metric} was not measured near {samples:,} training samples in {short(member.directory)}"
    return float(value)


def _over_images(cell: Cell, results: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval over resampled test images that a run may have written beside its metric."""
    metrics = results.get("metrics") or {}
    low, high = metrics.get(cell.metric + LOW), metrics.get(cell.metric + HIGH)
    if cell.samples is not None or not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    return float(low) * cell.factor, float(high) * cell.factor


def _seen(member: Member) -> int | None:
    """The number of training samples that a run sees by its configuration."""
    return look_up(member.composed.resolved, "train.samples", None)


def _beyond(prepared: Prepared) -> list[str]:
    """Columns that no run gets to: each reads its metric after more training samples than the runs see.

    All of them, where there are no others: a table without a number says at least what is missing.
    """
    reached = dict.fromkeys(prepared.layout.columns_at(prepared.scale), False)
    for placed in prepared.cells:
        for member in placed.runs.values():
            samples, seen = placed.cell.samples, _seen(member)
            if samples is None or seen is None or seen >= samples * (1 - SAMPLES_SLACK):
                reached[placed.cell.column] = True
    return [column for column, found in reached.items() if not found] if any(reached.values()) else []


def _said_of_columns(beyond: Sequence[str], prepared: Prepared) -> list[str]:
    if not beyond:
        return []
    most = max(seen for placed in prepared.cells for member in placed.runs.values() if (seen := _seen(member)))
    shown = [column for column in prepared.layout.columns_at(prepared.scale) if column not in beyond]
    return [
        f"shown: {', '.join(shown)}; left out, since no run sees that many training samples: {', '.join(beyond)}; "
        f"the runs see {most:,} (train.samples=N on the command line, or --scale paper)"
    ]


# --- cells of the document --------------------------------------------------------------------------------------------


def _cell(item: Measured, wanted: int, apart: Sequence[str]) -> dict[str, Any]:
    cell, conditions = item.placed.cell, item.conditions
    summary = summarise(list(item.values.values()), test_images=item.images)
    comparable = not (conditions.data or conditions.scale)
    remarks = [*conditions.remarks, *(apart if comparable else ()), *item.unfinished, *item.missing]
    if item.missing and item.values:
        remarks.insert(0, f"{len(item.values)} of {wanted} seeds")
    if cell.published is not None and cell.published.doubt:
        remarks.append(f"the published number is in doubt: {cell.published.doubt}")
    values = [
        {"seed": seed, "value": value, "run": item.runs[seed]} for seed, value in item.values.items()
    ]  # fmt: skip
    return {
        "published": _printed(cell.published),
        "metric": cell.metric,
        **({"factor": cell.factor} if cell.factor != 1 else {}),
        **_numbers(summary, values, cell.published, conditions),
        "remarks": remarks,
    }


def _printed(number: Published | None) -> dict[str, Any] | None:
    if number is None:
        return None
    keys = ("value", "unit", "direction", "tolerance", "sample", "seeds", "row", "column")
    return {key: getattr(number, key) for key in keys}


def _numbers(
    summary: Summary, values: list[dict[str, Any]], number: Published | None, conditions: Conditions
) -> dict[str, Any]:
    comparable = number is not None and summary.mean is not None and not conditions.data
    return {
        "values": values,
        "n": summary.n,
        "mean": summary.mean,
        "interval": None if summary.interval is None else list(summary.interval),
        "interval_kind": summary.kind,
        # On other data a difference would be a number without a meaning.
        "difference": summary.mean - number.value if comparable and number and summary.mean is not None else None,
        "verdict": str(judge(number, summary.mean, conditions)),
        "departs": conditions.departs,
        "deviations": list(conditions.deviations),
        "choices": list(conditions.choices),
    }


# --- comparisons of two rows ------------------------------------------------------------------------------------------


def _comparison(comparison: ComparisonEntry, measured: Sequence[Measured]) -> dict[str, Any]:
    by_place = {(item.placed.cell.row, item.placed.cell.column): item for item in measured}
    cells = {}
    for row, column in by_place:
        other = by_place.get((comparison.against, column))
        if row == comparison.of and other is not None and (not comparison.columns or column in comparison.columns):
            cells[column] = _compared(by_place[row, column], other)
    return {
        "row": comparison.row,
        "kind": "comparison",
        "of": comparison.of,
        "against": comparison.against,
        "cells": cells,
    }


def _compared(of: Measured, against: Measured) -> dict[str, Any]:
    pair = paired(of.values, against.values)
    conditions = of.conditions | against.conditions
    printed = _printed_difference(of.placed.cell.published, against.placed.cell.published)
    values = [
        {"seed": seed, "value": value, "run": None}
        for seed, value in zip(pair.seeds, pair.summary.values, strict=True)
    ]  # fmt: skip
    return {
        "published": _printed(printed),
        "metric": of.placed.cell.metric,
        **_numbers(pair.summary, values, printed, conditions),
        "remarks": [*_said_of_pair(pair, printed), *conditions.remarks],
    }


def _printed_difference(of: Published | None, against: Published | None) -> Published | None:
    """Return the difference of two printed numbers. Its tolerance is the root of the sum of both tolerances' squares: what is
    stated for each is taken for independent."""
    if of is None or against is None or of.unit != against.unit:
        return None
    both = None not in (of.tolerance, against.tolerance)
    return replace(
        of,
        row=f"{of.row} minus {against.row}",
        # Two printed decimals differ by a printed decimal, which floats do not always.
        value=round(of.value - against.value, 10),
        unit="points" if of.unit == "percent" else of.unit,
        tolerance=round(math.hypot(of.tolerance or 0.0, against.tolerance or 0.0), 3) if both else None,
        metric=None,
        deviation="",
        remark="",
    )


def _not_told_apart(
    comparisons: Sequence[ComparisonEntry], measured: Sequence[Measured]
) -> dict[tuple[str, str], list[str]]:
    """Return, by row and column, the rows that a comparison sets against it and whose tolerance overlaps its own."""
    numbers = {(i.placed.cell.row, i.placed.cell.column): i.placed.cell.published for i in measured}
    found: dict[tuple[str, str], list[str]] = {}
    for entry in comparisons:
        for (row, column), number in numbers.items():
            other = numbers.get((entry.against, column))
            if row != entry.of or number is None or other is None or (entry.columns and column not in entry.columns):
                continue
            if None in (number.tolerance, other.tolerance) or number.unit != other.unit:
                continue
            if abs(number.value - other.value) <= (number.tolerance or 0) + (other.tolerance or 0):
                text = "the tolerances of {} and {} overlap: this verdict does not tell the two apart, their difference below may"
                for place in ((entry.of, column), (entry.against, column)):
                    found.setdefault(place, []).append(text.format(entry.of, entry.against))
    return found


def _said_of_pair(pair: Paired, printed: Published | None) -> list[str]:
    said = ["difference seed by seed"]
    if pair.unpaired:
        said.append(f"seeds that only one of the two has are left out: {', '.join(map(str, pair.unpaired))}")
    mean, interval = pair.summary.mean, pair.summary.interval
    if mean is not None and printed is not None and printed.value:
        same = mean * printed.value > 0
        said.append("the same direction as in the paper" if same else _OTHER_DIRECTION)
    if interval is not None and interval[0] <= 0 <= interval[1]:
        said.append("the interval includes no difference at all")
    if printed is not None and printed.tolerance is not None and printed.tolerance >= abs(printed.value):
        said.append("the tolerance includes no difference at all: within it, this row does not tell the two apart")
    return said


# --- remarks about the whole table ------------------------------------------------------------------------------------


def _remarks(prepared: Prepared, results: Sequence[MemberStatus]) -> list[str]:
    said = [f"paper: {prepared.layout.source}"]
    data = dict.fromkeys(str((result.results or {}).get("data") or "") for result in results)
    said += [f"made on {text}" for text in data if text]
    if prepared.overrides:
        said.append(f"asked for on the command line: {' '.join(prepared.overrides)}")
    reasons: dict[str, dict[str, list[str]]] = {}
    for entry in prepared.layout.not_reached():
        rows = reasons.setdefault(entry.unreproduced or "no run here makes them", {})
        rows.setdefault(entry.row, []).append(entry.column)
    reached = {item.cell.published.row for item in prepared.cells if item.cell.published is not None}
    said += [
        "numbers of the paper that are not made here: "
        + "; ".join(f"{row} ({', '.join(columns)})" if row in reached else row for row, columns in rows.items())
        + f" ({reason})"
        for reason, rows in reasons.items()
    ]
    return said
