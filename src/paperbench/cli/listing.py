"""`paperbench ls` and `paperbench show`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from paperbench.catalog import DATASETS, MODELS, PAPERS, TASKS
from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.options import RunOptions
from paperbench.cli.output import describe_changes, line, table, yaml_text
from paperbench.config.difference import ABSENT, difference
from paperbench.config.experiments import Experiment, list_experiments
from paperbench.config.paths import notices, search_path, short


def ls(what: str, *, json_output: bool, conf_dir: Path | None) -> None:
    """Print one list of the catalog; what is wrong with installed packages goes to stderr."""
    for text in notices():
        print_error(f"note: {text}")
    if what == "experiments":
        _experiments(list_experiments(search_path(conf_dir)), json_output=json_output)
        return
    catalog: dict[str, Any] = {"tasks": TASKS, "models": MODELS, "datasets": DATASETS, "papers": PAPERS}[what]
    entries = [asdict(spec) for spec in catalog.values()]
    if what == "papers":
        entries = _with_counts(entries)
    if json_output:
        emit_json(entries)
        return
    columns = {
        "tasks": ("name", "verb", "summary"),
        "models": ("name", "summary", "source"),
        "datasets": ("name", "summary", "layout"),
        "papers": ("name", "numbers", "rows", "reproduced", "title", "venue"),
    }[what]
    table(columns, ([str(entry[column]) for column in columns] for entry in entries))


def _with_counts(papers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each paper how many numbers and rows its file has, and how many of these rows a reproduction reaches."""
    from paperbench.report import published
    from paperbench.report.coverage import Count, counts

    by_paper = counts(published.all_published())
    for text in published.notices():
        print_error(f"note: {text}")
    none = Count(numbers=0, rows=0, reproduced=0)
    return [paper | asdict(by_paper.get(paper["name"], none)) for paper in papers]


def _experiments(experiments: list[Experiment], *, json_output: bool) -> None:
    if json_output:
        emit_json([{**asdict(e), "file": str(e.file), "verb": verb_of(e.task)} for e in experiments])
        return
    own = any(not e.shipped for e in experiments)
    rows = [
        (f"paperbench {verb_of(e.task) or 'train'} {e.name}", e.paper, e.expected, e.time)
        + (("" if e.shipped else short(e.file),) if own else ())
        for e in experiments
    ]
    table(("command", "paper", "expected", "time", *(("file",) if own else ())), rows)


def verb_of(task: str) -> str:
    """Return the command that runs a task; empty for an unknown one."""
    return TASKS[task].verb if task in TASKS else ""


def show(experiment: str, overrides: list[str] | None, options: RunOptions, *, diff: bool) -> None:
    """Print the resolved configuration, or its differences to the experiment's default."""
    from paperbench.config.compose import compose
    from paperbench.records.launch import compose_for

    composed = compose_for(None, experiment, options.overrides(overrides), conf_dir=options.conf_dir)
    if not diff:
        if options.json_output:
            emit_json(composed.resolved)
        else:
            yaml_text(yaml.safe_dump(composed.resolved, sort_keys=False, allow_unicode=True))
        return
    default = compose(experiment, conf_dir=options.conf_dir).resolved
    changes = difference(default, composed.resolved)
    if options.json_output:
        emit_json({key: {k: v for k, v in (("default", a), ("now", b)) if v is not ABSENT} for key, a, b in changes})
    elif not changes:
        line(f"# nothing differs from {experiment}'s default")
    else:
        yaml_text("".join(f"{text}\n" for text in describe_changes(changes)))
