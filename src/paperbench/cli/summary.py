"""The summary at the end of a run: a few of its numbers, the paper's beside them, and what to type next.

Only what deserves a line; every number is in `results.json`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperbench.catalog import PAPERS, TASKS
from paperbench.cli.output import duration
from paperbench.config.commands import command, override
from paperbench.config.paths import short
from paperbench.errors import ConfigError, DataError
from paperbench.records.metrics import MetricRegistry, metrics_of
from paperbench.records.record import read_run
from paperbench.report.judgement import Judged, judge_run
from paperbench.report.reproduction_document import VERDICT_TONES
from paperbench.report.tables import Tone
from paperbench.report.verdict import Verdict, sentences

MOST_ROWS = 10
_UNITS = {
    "percent": " %",
    "points": " points",
    "ms": " ms",
    "s": " s",
    "min": " min",
    "h": " h",
    "fps": " /s",
    "nats": " nats",
    "pixels": " px",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric. `paper`, `where` and `verdict` are empty without a published number."""

    metric: str
    result: str
    paper: str = ""
    where: str = ""
    verdict: str = ""
    tone: Tone = "strong"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """`facts` and `commands` are (what, text) pairs; `remarks` are sentences about the comparison with the paper."""

    title: str
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]


def summarise(results: Mapping[str, Any], directory: str) -> Summary:
    """`results` is the content of `results.json`, `directory` the run's, whose `config.yaml` decides what applies."""
    metrics = {name: value for name, value in (results.get("metrics") or {}).items() if isinstance(value, int | float)}
    judged, fault = _judged(results, directory, metrics)
    declared = metrics_of(str(results.get("task")))
    shown = _chosen(metrics, judged, declared)
    comparable = {name: item for name, item in judged.items() if item.verdict is not Verdict.NOT_COMPARABLE}
    lines = tuple(_line(name, declared.text(name, metrics[name]), comparable.get(name)) for name in shown)
    done = results.get("status", "done") == "done"
    experiment = str(results.get("experiment") or results.get("task") or "run")
    return Summary(
        title=f"{experiment}: {results.get('status', 'done')}",
        lines=lines,
        remarks=(*_remarks(results, judged), *fault),
        facts=_facts(results, directory),
        commands=_commands(results, directory) if done else (("continue it", command("resume", _short(directory))),),
    )


def _judged(
    results: Mapping[str, Any], directory: str, metrics: Mapping[str, float]
) -> tuple[dict[str, Judged], tuple[str, ...]]:
    """Return the metrics that have a published counterpart, and why it cannot be read: that is no fault of the run."""
    try:
        config = read_run(Path(directory)).config
        return (
            judge_run(
                config,
                metrics,
                precision=results.get("precision"),
                departures=results.get("data_departures") or (),
            ),
            (),
        )
    except (ConfigError, DataError) as error:
        return {}, (f"no comparison with published numbers: {error}",)


def _chosen(metrics: Mapping[str, float], judged: Mapping[str, Judged], declared: MetricRegistry) -> list[str]:
    ordered = declared.headlines(metrics) or list(metrics)
    ordered.sort(key=lambda name: name not in judged)  # stable: what the paper printed comes first
    return ordered[:MOST_ROWS]


def _line(name: str, result: str, judged: Judged | None) -> Line:
    if judged is None:
        return Line(metric=name, result=result)
    entry = judged.published
    band = "" if entry.tolerance is None else f" +-{entry.tolerance:g}"
    paper = f"{entry.value:g}{band}{_UNITS.get(entry.unit, '')}"
    tone = VERDICT_TONES.get(judged.verdict, "strong")
    return Line(metric=name, result=result, paper=paper, where=entry.table, verdict=judged.text, tone=tone)


def _remarks(results: Mapping[str, Any], judged: Mapping[str, Judged]) -> tuple[str, ...]:
    if not judged:
        scale = results.get("scale")
        return ("no published number applies to these data and settings" + (f" at scale={scale}" if scale else ""),)
    if all(item.verdict is Verdict.NOT_COMPARABLE for item in judged.values()):
        departs = dict.fromkeys(text for item in judged.values() for text in item.conditions.deviations)
        places = dict.fromkeys(f"{item.published.table}, {item.published.row}" for item in judged.values())
        return (f"no published number is held against it ({'; '.join(places)}): {'; '.join(departs)}",)
    sources = dict.fromkeys(f"paper: {item.published.source}" for item in judged.values())
    said = dict.fromkeys(text for item in judged.values() for text in sentences(item.conditions))
    return (*sources, *said)


def _facts(results: Mapping[str, Any], directory: str) -> tuple[tuple[str, str], ...]:
    facts = []
    if results.get("data"):
        facts.append(("data", str(results["data"])))
    if isinstance(results.get("seconds"), int | float):
        facts.append(("time", duration(results["seconds"])))
    facts.append(("all numbers", short(Path(directory) / "results.json")))
    figures = Path(directory) / "figures"
    if figures.is_dir():
        facts.append(("figures", short(figures)))
    return tuple(facts)


def _commands(results: Mapping[str, Any], directory: str) -> tuple[tuple[str, str], ...]:
    task = TASKS.get(str(results.get("task")))
    if task is None:
        return ()
    commands = []
    if task.predicts:
        commands.append(("see it work", command("predict", _short(directory), "IMAGE.jpg")))
    if task.verb == "estimate":  # its page opens with the cases that need a look
        commands.append(("look at it", command("report", _short(directory))))
    if task.evaluated_by:
        experiment = results.get("experiment") or next(iter(PAPERS))
        commands.append(
            ("evaluate it again", command("eval", experiment, override("checkpoint", short(Path(directory)))))
        )
    return tuple(commands)


def _short(directory: str) -> Path:
    return Path(short(Path(directory)))
