"""The page of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from paperbench.config.commands import command
from paperbench.engine.rundir import DONE
from paperbench.errors import DataError
from paperbench.records.record import RunRecord
from paperbench.report.html import curves, parts, pictures
from paperbench.report.html.page import Badge, Block, Fact, Notice, Page, Tile, Tiles, section
from paperbench.report.html.quantities import Quantities, duration, minus, significant
from paperbench.report.judgement import Judged, judge_run
from paperbench.report.published import Published
from paperbench.report.reproduction_document import UNITS, VERDICT_TONES
from paperbench.report.tables import Column, Table, blank_cell, number_cell, text_cell
from paperbench.report.verdict import Verdict, sentences

_MOST_TILES = 6
_FEWEST_CLASSES = 2


def page_of_run(run: RunRecord, quantities: Quantities) -> Page:
    """Return the page of a run: results, curves, pictures, then everything needed to repeat it."""
    paper = _judged(run)
    drawn = curves.of_run(run, quantities)
    looks = pictures.first_look(run)
    shown = pictures.of_run(run, drawn=bool(drawn.charts))
    sections = [
        *section("trouble", "What went wrong", parts.trouble([run])),
        *section("first-look", looks.title, parts.gallery(looks.gallery)),
        *section("results", "Results", list(_results(run, quantities, paper))),
        *section("curves", "Curves", parts.charts(drawn)),
        *section("pictures", "Pictures", parts.gallery(shown)),
        *section("configuration", "Configuration", parts.configuration_of_run(run)),
        *section("environment", "Environment", parts.environment_of_run(run)),
        *section("checkpoints", "Checkpoints", [parts.checkpoints([run])]),
    ]
    return Page(
        subject="run",
        title=run.experiment or run.name,
        lead=str(run.results.get("data") or ""),
        badges=(Badge(text=run.state, tone=parts.state_tone(run.state)),),
        facts=tuple(_facts(run)),
        sections=tuple(sections),
        source=str(run.directory),
        left_out=tuple(filter(None, (*looks.gallery.left_out, *shown.left_out, parts.left_out_of(drawn)))),
    )


def _facts(run: RunRecord) -> Iterator[Fact]:
    named = {
        "run": run.name,
        "task": run.task,
        "scale": run.scale,
        "seed": "" if run.seed is None else str(run.seed),
        "device": ", ".join(
            filter(None, (str(run.results.get("device") or ""), str(run.results.get("precision") or "")))
        ),
        "time": "" if run.seconds is None else duration(run.seconds),
        "updated": str(run.status.get("updated") or "").replace("T", " ")[:16],
    }
    for name, text in named.items():
        if text:
            yield Fact(name=name, text=text)


# --- results ----------------------------------------------------------------------------------------------------------


def _results(run: RunRecord, quantities: Quantities, paper: Mapping[str, Judged]) -> Iterator[Block]:
    if not run.metrics:
        yield Notice(text=_no_results(run), tone="muted")
        return
    yield Tiles(tiles=tuple(_tiles(run, quantities, paper)))
    classes = _classes(run.metrics)
    by_class = {f"{family}/{member}" for family, members in classes.items() for member in members}
    yield _metrics(run, [name for name in run.metrics if name not in by_class], quantities, paper)
    if classes:
        yield _class_table(run, classes, quantities)
    if not paper:
        scale = f" at scale={run.scale}" if run.scale else ""
        yield Notice(text=f"No published number applies to these data and settings{scale}.", tone="muted")


def _no_results(run: RunRecord) -> str:
    step, steps, best = (run.status.get(key) for key in ("step", "steps", "best"))
    far = f" It came to step {step} of {steps}." if steps else ""
    so_far = f" Its best evaluation so far: {significant(best)}." if isinstance(best, int | float) else ""
    more = f" `{command('resume', run.directory)}` continues it." if run.state != DONE and run.config else ""
    return f"There are no results: the run is {run.state}.{far}{so_far}{more}"


def _tiles(run: RunRecord, quantities: Quantities, paper: Mapping[str, Judged]) -> Iterator[Tile]:
    names = quantities.headlines(run.metrics) or quantities.order(run.metrics)
    names = sorted(names, key=lambda name: name not in paper)[:_MOST_TILES]
    for name in names:
        value, judged = run.metrics[name], paper.get(name)
        remark = "" if judged is None else f"paper {_printed(judged.published)}, {judged.text}"
        yield Tile(
            label=name,
            text=quantities.number(name, value),
            exact=repr(value),
            unit=quantities.unit(name),
            remark=remark,
        )


def _metrics(run: RunRecord, names: Sequence[str], quantities: Quantities, paper: Mapping[str, Judged]) -> Table:
    columns = [Column(name="metric", code=True), Column(name="value", numeric=True), Column(name="unit")]
    if paper:
        columns += [
            Column(name="paper", numeric=True),
            Column(name="tolerance", numeric=True),
            Column(name="difference", numeric=True, hint="ours less the paper's"),
            Column(name="verdict"),
            Column(name="where"),
        ]
    rows = []
    for name in quantities.order(names):
        value = run.metrics[name]
        row = [text_cell(name), number_cell(value, quantities.number(name, value)), blank_cell(quantities.unit(name))]
        judged = paper.get(name)
        if paper and judged is None:
            row += [number_cell(None)] * 3 + [text_cell("")] * 2
        elif judged is not None:
            entry = judged.published
            shown = judged.verdict is not Verdict.NOT_COMPARABLE
            row += [
                number_cell(entry.value, minus(f"{entry.value:g}")),
                number_cell(entry.tolerance, "" if entry.tolerance is None else f"±{entry.tolerance:g}"),
                number_cell(value - entry.value, minus(f"{value - entry.value:+.3g}")) if shown else number_cell(None),
                text_cell(judged.text, tone=VERDICT_TONES.get(judged.verdict, ""), chip=True),
                text_cell(f"{entry.table}, {entry.row}", note="\n".join(sentences(judged.conditions))),
            ]
        rows.append(tuple(row))
    sources = tuple(dict.fromkeys(f"Paper: {judged.published.source}." for judged in paper.values()))
    return Table(
        name="metrics", title="Metrics of results.json", columns=tuple(columns), rows=tuple(rows), notes=sources
    )


def _judged(run: RunRecord) -> dict[str, Judged]:
    """Return the metrics that have a published counterpart, each with its verdict."""
    try:
        return judge_run(
            run.config,
            run.metrics,
            precision=run.results.get("precision"),
            departures=run.results.get("data_departures") or (),
        )
    except DataError:
        return {}  # a fault in a file of published numbers is no fault of the run


def _printed(entry: Published) -> str:
    band = "" if entry.tolerance is None else f" ±{entry.tolerance:g}"
    unit = UNITS.get(entry.unit, entry.unit)
    return minus(f"{entry.value:g}{band}{f' {unit}' if unit else ''}")


# --- classes ----------------------------------------------------------------------------------------------------------


def _classes(metrics: Mapping[str, float]) -> dict[str, list[str]]:
    """Group metrics of classes: `coco/AP/cat`, `coco/AP/dog` -> `{"coco/AP": ["cat", "dog"]}`."""
    families: dict[str, list[str]] = {}
    for name in metrics:
        family, _, member = name.rpartition("/")
        if "/" in family:
            families.setdefault(family, []).append(member)
    return {family: members for family, members in families.items() if len(members) >= _FEWEST_CLASSES}


def _class_table(run: RunRecord, classes: Mapping[str, Sequence[str]], quantities: Quantities) -> Table:
    members = dict.fromkeys(member for found in classes.values() for member in found)
    rows = []
    for member in members:
        cells = [text_cell(member)]
        for family in classes:
            name = f"{family}/{member}"
            value = run.metrics.get(name)
            cells.append(number_cell(value, None if value is None else quantities.number(name, value)))
        rows.append(tuple(cells))
    columns = (
        Column(name="class"),
        *(Column(name=family, unit=quantities.unit(f"{family}/x"), numeric=True, code=True) for family in classes),
    )
    return Table(name="classes", title="By class", columns=columns, rows=tuple(rows))
