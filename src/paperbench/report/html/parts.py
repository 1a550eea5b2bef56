"""Blocks that the pages of runs, sweeps and reproductions share: configurations, environments, files, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from paperbench.config.difference import ABSENT
from paperbench.config.quoting import quoted
from paperbench.engine.rundir import DONE, FAILED, RUNNING, STOPPED, WAITING
from paperbench.records.grouping import Setting, differing_keys, in_one_line
from paperbench.records.record import DAMAGED, INTERRUPTED, MISSING, NOT_STARTED, RunRecord
from paperbench.report.html.curves import Curves
from paperbench.report.html.machines import environment, shared_and_differing
from paperbench.report.html.page import Block, Charts, Code, Fact, Facts, Fold, Notice, Prose
from paperbench.report.html.pictures import Gallery
from paperbench.report.html.quantities import minus, plural, size
from paperbench.report.tables import Cell, Column, Table, Tone, number_cell, text_cell

_STATE_TONES: dict[str, Tone] = {
    DONE: "good",
    RUNNING: "warn",
    STOPPED: "warn",
    INTERRUPTED: "warn",
    WAITING: "muted",
    NOT_STARTED: "muted",
    FAILED: "bad",
    DAMAGED: "bad",
    MISSING: "bad",
}
_MOST_SETTINGS_ACROSS = 6
_MOST_VALUES = 8
_MOST_CHARTS_OPEN = 12
_LONGEST_DIFF = 60_000


def state_tone(state: str) -> Tone:
    return _STATE_TONES.get(state, "warn")


def state_cell(run: RunRecord) -> Cell:
    """Return the state, with the progress of an unfinished run."""
    steps = run.status.get("steps")
    far = f"step {run.status.get('step', 0)} of {steps}" if steps and run.state != DONE else ""
    return text_cell(run.state, tone=state_tone(run.state), note=far, chip=True)


def trouble(runs: Sequence[RunRecord]) -> list[Block]:
    """Return the failures and faults run by run, with their messages and logs."""
    blocks: list[Block] = []
    for run in runs:
        if run.state in (FAILED, DAMAGED, INTERRUPTED) or run.faults:
            points = tuple(filter(None, (run.message, *run.faults)))
            about = f"{run.name}: {run.state if run.state != DONE else 'done, but not all of its files are whole'}"
            blocks.append(Notice(text=about, tone="bad" if run.state in (FAILED, DAMAGED) else "warn", points=points))
            tail = run.log_tail() if run.state != DONE else ""
            if tail:
                blocks.append(Fold(summary="The last lines of its log", blocks=(Code(text=tail, label="log.txt"),)))
    return blocks


def charts(curves: Curves) -> list[Block]:
    """Return the charts, those after the first ones folded, and the names of those without room."""
    first, others = curves.charts[:_MOST_CHARTS_OPEN], curves.charts[_MOST_CHARTS_OPEN:]
    blocks: list[Block] = [Charts(charts=first, note=curves.note)] if first else []
    if others:
        blocks.append(Fold(summary=f"{plural(len(others), 'more curve')}", blocks=(Charts(charts=others),)))
    if curves.left_out:
        named = ", ".join(curves.left_out)
        blocks.append(Fold(summary=left_out_of(curves), blocks=(Prose(text=named),)))
    return blocks


def left_out_of(curves: Curves) -> str:
    """Return `3 curves of metrics.jsonl are not drawn here`; empty where all are drawn."""
    count = len(curves.left_out)
    return f"{plural(count, 'curve')} of metrics.jsonl {'is' if count == 1 else 'are'} not drawn here" if count else ""


def gallery(found: Gallery) -> list[Block]:
    """Return the pictures, and a notice of those left out."""
    if not found.pictures and not found.left_out:
        return []
    blocks: list[Block] = [found] if found.pictures else []
    if found.left_out:
        blocks.append(Notice(text="Left out of this page", tone="muted", points=found.left_out))
    return blocks


# --- configurations ---------------------------------------------------------------------------------------------------


def configuration_of_run(run: RunRecord) -> list[Block]:
    """Return the complete configuration, folded."""
    if not run.config:
        return []
    return [Fold(summary="The complete configuration", blocks=(Code(text=yaml_text(run.config), label="config.yaml"),))]


def configurations(settings: Sequence[Setting]) -> list[Block]:
    """Return the keys that differ between the settings, and, folded, those that all share."""
    runs = [run for setting in settings for run in setting.runs if run.config]
    if not runs:
        return []
    keys = [key for key in differing_keys(runs) if key != "seed"]
    blocks: list[Block] = []
    if keys:
        configured = [setting for setting in settings if any(run.config for run in setting.runs)]
        blocks.append(_across(keys, configured) if len(configured) <= _MOST_SETTINGS_ACROSS else _counted(keys, runs))
    else:
        blocks.append(
            Prose(text="The configurations differ in nothing but the seed." if len(runs) > 1 else "There is one run.")
        )
    shared = {key: value for key, value in runs[0].flat_config.items() if key not in {*keys, "seed"}}
    text = yaml_text(_nested(shared))
    blocks.append(Fold(summary="What all runs have in common", blocks=(Code(text=text, label="config.yaml"),)))
    return blocks


def _across(keys: Sequence[str], settings: Sequence[Setting]) -> Table:
    """Return a table of differing keys as rows and settings as columns."""
    firsts = [next(run for run in setting.runs if run.config) for setting in settings]
    return Table(
        name="configuration",
        title="Keys of the configuration that differ",
        columns=(Column(name="key", code=True), *(Column(name=setting.label, code=True) for setting in settings)),
        rows=tuple((text_cell(key), *(text_cell(_value(run, key)) for run in firsts)) for key in keys),
    )


def _counted(keys: Sequence[str], runs: Sequence[RunRecord]) -> Table:
    """Return a table of differing keys, with each value and its number of runs."""
    rows = []
    for key in keys:
        counts: dict[str, int] = {}
        for run in runs:
            counts[_value(run, key)] = counts.get(_value(run, key), 0) + 1
        texts = [f"{value or 'absent'} ({plural(count, 'run')})" for value, count in counts.items()]
        more = f", and {len(texts) - _MOST_VALUES} more" if len(texts) > _MOST_VALUES else ""
        rows.append(
            (
                text_cell(key),
                number_cell(len(counts), str(len(counts))),
                text_cell(", ".join(texts[:_MOST_VALUES]) + more),
            )
        )
    return Table(
        name="configuration",
        title="Keys of the configuration that differ",
        columns=(Column(name="key", code=True), Column(name="values", numeric=True), Column(name="which", code=True)),
        rows=tuple(rows),
    )


def _value(run: RunRecord, key: str) -> str:
    value = run.flat_config.get(key, ABSENT)
    return "" if value is ABSENT else in_one_line(value)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as nested mappings."""
    root: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        section = root
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return root


def yaml_text(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=100).rstrip()


# --- environments -----------------------------------------------------------------------------------------------------


def environment_of_run(run: RunRecord) -> list[Block]:
    """Return the environment, the command, and the changes that were not committed at the time."""
    facts = [Fact(name=key, text=value) for key, value in environment(run).items()]
    facts += [Fact(name="started", text=str(run.environment["started"]))] if run.environment.get("started") else []
    resumed = run.environment.get("resumed")
    if isinstance(resumed, list) and resumed:
        facts.append(Fact(name="resumed", text=plural(len(resumed), "time")))
    argv = run.environment.get("argv")
    if isinstance(argv, list) and argv:
        facts.append(Fact(name="command", text=quoted(*map(str, argv)), code=True))
    blocks: list[Block] = [Facts(facts=tuple(facts))] if facts else []
    git = run.environment.get("git")
    diff = str(git.get("diff") or "") if isinstance(git, Mapping) else ""
    if diff:
        cut = f"\n… {len(diff) - _LONGEST_DIFF:,} more characters in env.json" if len(diff) > _LONGEST_DIFF else ""
        code = Code(text=diff[:_LONGEST_DIFF] + cut, label="git diff")
        blocks.append(Fold(summary="Changes that were not committed", blocks=(code,)))
    return blocks


def environments(runs: Sequence[RunRecord]) -> list[Block]:
    """Return the facts that all runs share, and the others with the number of runs of each value."""
    facts = [found for run in runs if (found := environment(run))]
    if not facts:
        return []
    shared, differing = shared_and_differing(facts)
    blocks: list[Block] = (
        [Facts(facts=tuple(Fact(name=key, text=value) for key, value in shared.items()))] if shared else []
    )
    if differing:
        rows = tuple(
            (
                text_cell(key),
                text_cell(
                    ", ".join(f"{value or 'unknown'} ({plural(count, 'run')})" for value, count in counts.items())
                ),
            )
            for key, counts in differing.items()
        )
        blocks.append(
            Table(
                name="environments",
                title="Differences between the machines",
                columns=(Column(name="fact"), Column(name="values")),
                rows=rows,
            )
        )
    return blocks


# --- files ------------------------------------------------------------------------------------------------------------


def checkpoints(runs: Sequence[RunRecord]) -> Table | None:
    """Return the files of weights with their hashes."""
    several = len(runs) > 1
    rows = []
    for run in runs:
        for entry in run.checkpoints:
            cells = [
                text_cell(entry.file),
                number_cell(entry.step, None if entry.step is None else minus(f"{entry.step:,}")),
                number_cell(entry.size, None if entry.size is None else size(entry.size)),
                text_cell(entry.sha256),
            ]
            rows.append((text_cell(run.name), *cells) if several else tuple(cells))
    if not rows:
        return None
    columns = (
        Column(name="file", code=True),
        Column(name="step", numeric=True),
        Column(name="bytes", label="size", numeric=True),
        Column(name="sha256", label="SHA-256", code=True),
    )
    return Table(
        name="checkpoints",
        title="Checkpoints, as their manifests describe them",
        columns=(Column(name="run", code=True), *columns) if several else columns,
        rows=tuple(rows),
    )
