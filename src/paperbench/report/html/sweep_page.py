"""The page of a sweep, and the sections about several runs that the page of a reproduction has too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from paperbench.config.commands import command
from paperbench.records.grouping import SEED, Setting, settings_of, typed_value, varied
from paperbench.records.record import RunRecord
from paperbench.records.statistics import FEWEST_FOR_INTERVAL, Summary, summarise
from paperbench.records.sweeps import SweepRecord
from paperbench.report.html import curves, parts, pictures, trends
from paperbench.report.html.page import Badge, Block, Fact, Fold, Notice, Page, Section, section
from paperbench.report.html.quantities import Quantities, duration, plural
from paperbench.report.tables import Cell, Column, Table, number_cell, text_cell

MOST_HEADLINES = 6


def page_of_sweep(sweep: SweepRecord, quantities: Quantities) -> Page:
    """Return the page of a sweep: the varied keys and their results; the pages of the runs hold the rest."""
    sections, left_out = sections_of_runs(sweep.runs, quantities)
    if not sweep.runs:
        sections = [Section(slug="runs", title="Runs", blocks=(Notice(text="The sweep has no runs.", tone="muted"),))]
    typed = command("sweep", sweep.experiment, *sweep.overrides) if sweep.experiment else ""
    facts = facts_of(sweep.runs)
    if typed:
        facts.append(Fact(name="command", text=typed, code=True))
    return Page(
        subject="sweep",
        title=sweep.name,
        lead=data_of(sweep.runs),
        badges=badges_of(sweep.runs),
        facts=tuple(facts),
        sections=tuple(sections),
        source=str(sweep.directory),
        left_out=left_out,
    )


def sections_of_runs(runs: Sequence[RunRecord], quantities: Quantities) -> tuple[list[Section], tuple[str, ...]]:
    """Return results, curves, pictures, configurations, environments and files of several runs; and what was left out."""
    settings = settings_of(runs)
    drawn = curves.of_settings(settings, quantities)
    shown = pictures.of_runs(
        [run for setting in settings for run in setting.runs[:1]],
        lambda run: _named(run, settings),
        drawn=bool(drawn.charts),
    )
    sections = [
        *section("trouble", "What went wrong", parts.trouble(runs)),
        *section("runs", "Runs", _tables(runs, settings, quantities)),
        *section("trends", "Results against what was varied", parts.charts(_trends(runs, settings, quantities))),
        *section("curves", "Curves", parts.charts(drawn)),
        *section("pictures", "Pictures", parts.gallery(shown)),
        *section("configuration", "Configuration", parts.configurations(settings)),
        *section("environment", "Environment", parts.environments(runs)),
        *section("checkpoints", "Checkpoints", [_folded(parts.checkpoints(runs))]),
    ]
    return sections, tuple(filter(None, (*shown.left_out, parts.left_out_of(drawn))))


def badges_of(runs: Sequence[RunRecord]) -> tuple[Badge, ...]:
    """Return the states of the runs, `10 done`, `1 failed`."""
    return tuple(
        Badge(text=f"{count} {state}", tone=parts.state_tone(state))
        for state, count in Counter(r.state for r in runs).items()
    )


def facts_of(runs: Sequence[RunRecord]) -> list[Fact]:
    """Return facts about all runs: scale, seeds, device, total time."""
    scales = dict.fromkeys(run.scale for run in runs if run.scale)
    seeds = dict.fromkeys(str(run.seed) for run in runs if run.seed is not None)
    made = ((run.results.get("device"), run.results.get("precision")) for run in runs if run.results)
    machines = dict.fromkeys(", ".join(str(part) for part in parts_ if part) for parts_ in made)
    seconds = [run.seconds for run in runs if run.seconds is not None]
    named = {
        "runs": str(len(runs) or ""),
        "scale": ", ".join(scales),
        "seeds": ", ".join(seeds),
        "device": "; ".join(machines),
        "time of all runs": duration(sum(seconds)) if seconds else "",
    }
    return [Fact(name=name, text=text) for name, text in named.items() if text]


def data_of(runs: Sequence[RunRecord]) -> str:
    """Return the data of the runs."""
    return "; ".join(dict.fromkeys(str(run.results["data"]) for run in runs if run.results.get("data")))


def _named(run: RunRecord, settings: Sequence[Setting]) -> str:
    label = next(setting.label for setting in settings if run in setting.runs)
    return label if run.seed is None else f"{label}, seed {run.seed}"


def _folded(table: Table | None) -> Block | None:
    if table is None:
        return None
    return Fold(summary=f"{plural(len(table.rows), 'file')} with their hashes", blocks=(table,))


# --- tables -----------------------------------------------------------------------------------------------------------


def _trends(runs: Sequence[RunRecord], settings: Sequence[Setting], quantities: Quantities) -> curves.Curves:
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    return trends.of_settings(settings, quantities.headlines(names)[:MOST_HEADLINES], quantities)


def _tables(runs: Sequence[RunRecord], settings: Sequence[Setting], quantities: Quantities) -> list[Block | None]:
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    chief = (quantities.headlines(names) or quantities.order(names))[:MOST_HEADLINES]
    keys = varied(runs)
    several = any(len(setting.done) > 1 for setting in settings)
    everything = _runs_table(
        "all-metrics", "Every metric of every run", runs, keys, quantities.order(names), quantities
    )
    more = len(names) > len(chief)
    return [
        _settings_table(settings, [key for key in keys if key != SEED], chief, quantities) if several else None,
        _runs_table("runs", "Runs", runs, keys, chief, quantities, seconds=True),
        Fold(summary=f"All {len(names)} metrics of every run", blocks=(everything,)) if more else None,
    ]


def _runs_table(
    slug: str,
    title: str,
    runs: Sequence[RunRecord],
    keys: Sequence[str],
    names: Sequence[str],
    quantities: Quantities,
    *,
    seconds: bool = False,
) -> Table:
    best = {name: _best([run.metrics.get(name) for run in runs], name, quantities) for name in names}
    rows = []
    for run in runs:
        row = [text_cell(run.name), *(_key_cell(typed_value(run, key)) for key in keys), parts.state_cell(run)]
        row += [_metric_cell(name, run.metrics.get(name), best[name], quantities) for name in names]
        if seconds:
            row.append(number_cell(run.seconds, None if run.seconds is None else duration(run.seconds)))
        rows.append(tuple(row))
    columns = (
        Column(name="run", code=True),
        *(
            Column(name=key, label=key.rpartition(".")[2], hint=key, numeric=_all_numbers(runs, key), code=True)
            for key in keys
        ),
        Column(name="state"),
        *(Column(name=name, unit=quantities.unit(name), numeric=True, code=True) for name in names),
        *((Column(name="seconds", label="time", numeric=True),) if seconds else ()),
    )
    return Table(name=slug, title=title, columns=columns, rows=tuple(rows))


def _settings_table(
    settings: Sequence[Setting], keys: Sequence[str], names: Sequence[str], quantities: Quantities
) -> Table:
    """Return a table of the mean and interval of each setting over its seeds."""
    summaries = [
        {name: summarise([run.metrics[name] for run in setting.done if name in run.metrics]) for name in names}
        for setting in settings
    ]
    best = {name: _best([summary[name].mean for summary in summaries], name, quantities) for name in names}
    rows = []
    for setting, summary in zip(settings, summaries, strict=True):
        heads = [_key_cell(setting.values[key]) for key in keys] if keys else [text_cell(setting.label)]
        means = [_mean_cell(name, summary[name], best[name], quantities) for name in names]
        rows.append((*heads, number_cell(len(setting.done), str(len(setting.done))), *means))
    runs = [run for setting in settings for run in setting.runs]
    heads = [
        Column(name=key, label=key.rpartition(".")[2], hint=key, numeric=_all_numbers(runs, key), code=True)
        for key in keys
    ]
    columns = (
        *(heads or [Column(name="setting")]),
        Column(name="seeds", numeric=True, hint="runs that are done"),
        *(Column(name=name, unit=quantities.unit(name), numeric=True, code=True) for name in names),
    )
    return Table(
        name="settings",
        title="Means over seeds",
        columns=columns,
        rows=tuple(rows),
        notes=(
            "Computed from the runs' results. Below a mean: the range of two to four seeds, "
            f"from {FEWEST_FOR_INTERVAL} on the 95 % interval of the mean (Student's t).",
        ),
    )


def _mean_cell(name: str, summary: Summary, best: float | None, quantities: Quantities) -> Cell:
    if summary.mean is None:
        return number_cell(None)
    note = ""
    if summary.interval is not None:
        low, high = (quantities.number(name, end) for end in summary.interval)
        note = f"{low} to {high}"
    elif summary.n == 1:
        note = "one seed"
    tone = "best" if summary.mean == best else ""
    return number_cell(summary.mean, quantities.number(name, summary.mean), tone=tone, note=note)


def _metric_cell(name: str, value: float | None, best: float | None, quantities: Quantities) -> Cell:
    text = None if value is None else quantities.number(name, value)
    return number_cell(value, text, tone="best" if value is not None and value == best else "")


def _key_cell(text: str) -> Cell:
    number = _number(text)
    return text_cell(text) if number is None else number_cell(number, text)


def _all_numbers(runs: Sequence[RunRecord], key: str) -> bool:
    return all(_number(text) is not None for run in runs if (text := typed_value(run, key)))


def _number(text: str) -> float | int | None:
    """Return a value that was typed as a number as one, so that it sorts; None for any other."""
    for read in (int, float):
        try:
            value = read(text)
        except ValueError:
            continue
        return value if value == value and abs(value) != float("inf") else None
    return None


def _best(values: Sequence[float | None], name: str, quantities: Quantities) -> float | None:
    """Return the best of several values, where its metric has a better direction and there is more than one value."""
    present = [value for value in values if value is not None]
    return quantities.best(name, present) if len(set(present)) > 1 else None
