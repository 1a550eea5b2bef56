"""`paperbench ls` and `paperbench show`."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from paperbench.catalog import DATASETS, MODELS, PAPERS, TASKS, packages
from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.options import RunOptions
from paperbench.cli.output import describe_changes, folded_table, line, page_width, yaml_text
from paperbench.config.difference import ABSENT, difference
from paperbench.config.experiments import Experiment, list_experiments
from paperbench.config.paths import notices, search_path, short
from paperbench.config.suggest import nearest
from paperbench.errors import ConfigError

LISTS = ("experiments", "tasks", "models", "datasets", "papers")
"""What `ls` lists; any other word is an experiment."""


def ls(what: str, *, json_output: bool, conf_dir: Path | None) -> None:
    """Print one list of the catalog, or all of an experiment; what is wrong with installed packages goes to stderr."""
    for text in notices():
        print_error(f"note: {text}")
    if what not in LISTS or what == "experiments":
        experiments = list_experiments(search_path(conf_dir))
        if what == "experiments":
            _experiments(experiments, json_output=json_output)
        else:
            _experiment(what, experiments, json_output=json_output)
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
    folded_table(columns, ([str(entry[column]) for column in columns] for entry in entries))


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
    """Print the experiments below the titles of the packages whose tasks they are, the user's own at the end."""
    if json_output:
        emit_json([_as_json(experiment) for experiment in experiments])
        return
    package_of = {task.name: item.package for item in packages() for task in item.package.tasks}
    groups: dict[str, list[Experiment]] = {item.package.title or item.package.name: [] for item in packages()}
    own = groups.setdefault("Yours", [])
    for experiment in experiments:
        package = package_of.get(experiment.task)
        group = groups[package.title or package.name] if experiment.shipped and package else own
        group.append(experiment)
    rows = {
        title: [(f"{verb_of(e.task) or 'train'} {e.name}", e.about if e.shipped else short(e.file)) for e in group]
        for title, group in groups.items()
        if group
    }
    width = max((len(command) for group in rows.values() for command, _ in group), default=0)
    for title, group in rows.items():
        line(title)
        for command, about in group:
            line(f"  paperbench {command.ljust(width)}  {about}".rstrip())
    line("One of them in full: paperbench ls NAME. Other lists: paperbench ls tasks|models|datasets|papers.")


def _experiment(name: str, experiments: list[Experiment], *, json_output: bool) -> None:
    """Print all that an experiment's file says of itself. Raises `ConfigError` where there is none of that name."""
    found = next((experiment for experiment in experiments if experiment.name == name), None)
    if found is None:
        near = nearest(name, [*LISTS, *(experiment.name for experiment in experiments)])
        known = f"Nearest: {', '.join(near)}" if near else f"Lists: {', '.join(LISTS)}"
        raise ConfigError(f"{name}: no list of `paperbench ls`, and no experiment. {known}")
    if json_output:
        emit_json(_as_json(found))
        return
    line(f"{name}: {found.about}" if found.about else name)
    verb = verb_of(found.task) or "train"
    entries = {
        "paper": found.paper,
        "commands": found.command or f"paperbench {verb} {name}",
        "expected": found.expected,
        "time": found.time,
        "task": found.task,
        "file": short(found.file),
    }
    for title, text in entries.items():
        paragraphs = text.splitlines() if title == "commands" else [" ".join(text.split())]
        lines = [part for paragraph in paragraphs for part in _folded(paragraph)]
        for place, part in enumerate(lines if text else []):
            line(f"  {title if place == 0 else '':<10}{part}")


def _folded(text: str) -> list[str]:
    return textwrap.wrap(text, page_width() - 12, break_long_words=False, break_on_hyphens=False)


def _as_json(experiment: Experiment) -> dict[str, Any]:
    return {**asdict(experiment), "file": str(experiment.file), "verb": verb_of(experiment.task)}


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
