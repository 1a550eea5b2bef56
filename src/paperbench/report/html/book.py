"""A book: every reproduction, sweep, run and benchmark as pages that lead to each other, small enough to hand on.

`pages_of` gives the pages with their places below the book's folder; `book_writing` writes them.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from paperbench.catalog import PAPERS
from paperbench.config.commands import command
from paperbench.config.paths import shipped_results
from paperbench.errors import PaperbenchError
from paperbench.records.metrics import all_metrics, metrics_of
from paperbench.records.record import RunRecord
from paperbench.records.selection import find_runs
from paperbench.records.sweeps import SweepRecord, find_sweeps, read_sweep
from paperbench.report.html import parts
from paperbench.report.html.page import (
    Block,
    Charts,
    Fact,
    Fold,
    Notice,
    Page,
    Prose,
    Section,
    section,
)
from paperbench.report.html.pictures import Gallery
from paperbench.report.html.quantities import Quantities, duration, plural
from paperbench.report.html.reproduction_page import page_of_reproduction
from paperbench.report.html.run_page import page_of_run
from paperbench.report.html.sources import REPRODUCTION, ReproductionRecord, load
from paperbench.report.html.sweep_page import page_of_sweep
from paperbench.report.outcomes import NOT_MADE, OUTCOMES, SCALE, count_in_words, outcome_of, published_numbers
from paperbench.report.reproduction_document import verdict_of
from paperbench.report.results import made_by, made_in_words, read_all, run_cells
from paperbench.report.tables import Cell, Column, Table, blank_cell, number_cell, text_cell

INDEX = "index.html"
NOTE = "note.md"
_MOST_ROWS = 400


@dataclass(frozen=True, kw_only=True)
class MadeTable:
    """A table as it was made below the folder, or elsewhere: then it travels with the program."""

    record: ReproductionRecord
    made: Mapping[str, Any]
    is_here: bool
    note: str = ""

    @property
    def scale(self) -> str:
        return str(self.record.document["scale"])

    @property
    def is_published(self) -> bool:
        """True at the paper's own schedule, without settings of somebody's own: what is counted."""
        return self.scale == SCALE and not self.record.document.get("overrides")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a book is made of. `left_out` names what could not be read."""

    root: Path
    tables: tuple[MadeTable, ...]
    sweeps: tuple[SweepRecord, ...]
    runs: tuple[RunRecord, ...]
    benchmarks: tuple[Measurements, ...]
    left_out: tuple[str, ...]


def contents_of(root: Path, benchmarks: Path | None = None) -> Contents:
    """Read all there is below `root`, the tables that travel with the program, and the CSV files of a folder of benchmarks.

    A damaged record is named in `left_out` and stops nothing.
    """
    left_out: list[str] = []

    def readable(files: Iterable[Path], read: Callable[[Path], Any]) -> Iterator[Any]:
        for file in sorted(files):
            try:
                yield read(file)
            except PaperbenchError as error:
                left_out.append(str(error))

    here = [
        MadeTable(record=record, made=made_by([run for run in record.runs if run.results]), is_here=True)
        for record in readable((root / "reproduce").glob(f"*/*/*/{REPRODUCTION}"), load)
    ]
    sweeps = list(readable(find_sweeps(root), read_sweep))
    return Contents(
        root=root,
        tables=(*here, *_elsewhere(left_out)),
        sweeps=tuple(sweeps),
        runs=tuple(find_runs(root)),
        benchmarks=tuple(map(read_measurements, sorted(benchmarks.glob("*.csv")))) if benchmarks else (),
        left_out=tuple(left_out),
    )


def _elsewhere(left_out: list[str]) -> list[MadeTable]:
    folder = shipped_results()
    try:
        kept = read_all(folder)
    except PaperbenchError as error:
        left_out.append(str(error))
        return []
    return [
        MadeTable(
            record=ReproductionRecord(directory=folder / item.key, document=item.document, runs=()),
            made=item.made,
            is_here=False,
            note=_text(folder / item.key / NOTE),
        )
        for item in kept
    ]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


# --- pages ------------------------------------------------------------------------------------------------------------


def pages_of(contents: Contents) -> Iterator[tuple[PurePosixPath, Page]]:
    """Yield every page with its place below the book's folder, the index last. Links between them are relative."""
    places = _Places(contents)
    for run in contents.runs:
        yield places.of_run(run), _in_book(page_of_run(run, _quantities([run])))
    for sweep in contents.sweeps:
        page = page_of_sweep(sweep, _quantities(sweep.runs))
        yield places.of(sweep), _in_book(_linked(page, places.links(sweep.directory, sweep.runs)))
    for table in contents.tables:
        yield places.of(table), _in_book(_page_of_table(table, places))
    for found in contents.benchmarks:
        yield places.of(found), _in_book(_page_of_benchmark(found))
    yield PurePosixPath(INDEX), _index(contents, places)


def _quantities(runs: Sequence[RunRecord]) -> Quantities:
    tasks = {run.task for run in runs if run.task}
    return Quantities(metrics_of(tasks.pop()) if len(tasks) == 1 else all_metrics())


def _in_book(page: Page) -> Page:
    return replace(page, book=f"../{INDEX}")


class _Places:
    """Names of pages: readable, of plain letters, and no two the same."""

    def __init__(self, contents: Contents) -> None:
        self._taken: set[str] = set()
        self._places: dict[int, PurePosixPath] = {}
        self._runs: dict[Path, PurePosixPath] = {}
        root = contents.root.resolve()
        for run in contents.runs:
            self._runs[run.directory.resolve()] = self._new("run", _below(run.directory.resolve(), root))
        for sweep in contents.sweeps:
            self._places[id(sweep)] = self._new("sweep", f"{sweep.name}-{sweep.directory.name}")
        for table in contents.tables:
            where = "" if table.is_here else "-elsewhere"
            name = f"{table.record.name}-{table.record.directory.name}{where}"
            self._places[id(table)] = self._new("table", name)
        for found in contents.benchmarks:
            self._places[id(found)] = self._new("benchmark", found.file.stem)

    def of(self, subject: SweepRecord | MadeTable | Measurements) -> PurePosixPath:
        return self._places[id(subject)]

    def of_run(self, run: RunRecord) -> PurePosixPath:
        return self._runs[run.directory.resolve()]

    def links(self, source: Path, runs: Iterable[RunRecord]) -> dict[str, str]:
        """Return where the names of runs lead to, as a page about the folder `source` writes them."""
        found = {}
        for run in runs:
            place = self._runs.get(run.directory.resolve())
            if place is not None:
                href = f"../{place}"
                found |= {os.path.relpath(run.directory, source): href, str(run.directory): href, run.name: href}
        return found

    def _new(self, kind: str, name: str) -> PurePosixPath:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or kind
        count = 1
        while (place := f"{kind}s/{slug}{'' if count == 1 else f'-{count}'}.html") in self._taken:
            count += 1
        self._taken.add(place)
        return PurePosixPath(place)


def _below(directory: Path, root: Path) -> str:
    return str(directory.relative_to(root)) if directory.is_relative_to(root) else directory.name


def _linked(page: Page, links: Mapping[str, str]) -> Page:
    """Return the page with links where a column `run` names a run that has a page."""
    return _with_blocks(page, lambda block: _linked_table(block, links) if isinstance(block, Table) else block)


def _linked_table(table: Table, links: Mapping[str, str]) -> Table:
    places = [number for number, column in enumerate(table.columns) if column.name == "run"]
    if not places:
        return table
    rows = tuple(
        tuple(
            replace(cell, href=links.get(cell.text, "")) if number in places else cell
            for number, cell in enumerate(row)
        )
        for row in table.rows
    )
    return replace(table, rows=rows)


def _with_blocks(page: Page, change: Callable[[Block], Block | None]) -> Page:
    """Return the page with each block, those in folds too, replaced; None leaves it out, and a section with nothing left."""

    def changed(blocks: Sequence[Block]) -> tuple[Block, ...]:
        found = []
        for block in blocks:
            if isinstance(block, Fold):
                inner = changed(block.blocks)
                new: Block | None = change(replace(block, blocks=inner)) if inner else None
            else:
                new = change(block)
            found += [new] if new is not None else []
        return tuple(found)

    sections = [replace(item, blocks=changed(item.blocks)) for item in page.sections]
    return replace(page, sections=tuple(item for item in sections if item.blocks))


def _page_of_table(table: MadeTable, places: _Places) -> Page:
    record = table.record
    page = page_of_reproduction(record, Quantities(all_metrics()))
    where = Fact(name="made" if table.is_here else "made elsewhere", text=made_in_words(table.made))
    facts = (*page.facts, where) if table.made.get("runs") else page.facts
    sections = list(page.sections)
    if table.note:
        paragraphs = [Prose(text=" ".join(text.split())) for text in table.note.split("\n\n") if text.strip()]
        sections[1:1] = section("note", "What is known about it", paragraphs)
    return _linked(replace(page, facts=facts, sections=tuple(sections)), places.links(record.directory, record.runs))


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """The rows of a CSV file of measurements, and why there are none."""

    file: Path
    rows: tuple[Mapping[str, str], ...]
    fault: str = ""

    def distinct(self, name: str) -> list[str]:
        """Return the values of a column, each once, such as the machines that rows were measured on."""
        return list(dict.fromkeys(row[name] for row in self.rows if row.get(name)))


def read_measurements(file: Path) -> Measurements:
    """Read a CSV file with a heading; what cannot be read is a `fault` in words."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = tuple(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return Measurements(file=file, rows=(), fault=f"{file.name} cannot be read: {error}")
    return Measurements(file=file, rows=rows, fault="" if rows else f"{file.name} has no rows.")


def _page_of_benchmark(found: Measurements) -> Page:
    shown = found.rows[:_MOST_ROWS]
    names = [name for name in (shown[0] if shown else ()) if name]
    numeric = {name: all(_number(row.get(name)) is not None for row in found.rows if row.get(name)) for name in names}
    cut = f"The first {_MOST_ROWS} of {len(found.rows):,} rows; the file has them all."
    table = Table(
        name="measurements",
        title=found.file.name,
        columns=tuple(Column(name=name, numeric=numeric[name]) for name in names),
        rows=tuple(tuple(_measured(row.get(name) or "", is_number=numeric[name]) for name in names) for row in shown),
        notes=(cut,) if len(found.rows) > len(shown) else (),
    )
    blocks: list[Block | None] = [table if names else None, Notice(text=found.fault) if found.fault else None]
    facts = {
        "rows": f"{len(found.rows):,}",
        "machine": "; ".join(found.distinct("machine")),
        "commit": ", ".join(found.distinct("commit")),
    }
    return Page(
        subject="benchmark",
        title=found.file.stem,
        lead="",
        badges=(),
        facts=tuple(Fact(name=name, text=text) for name, text in facts.items() if text),
        sections=tuple(section("measurements", "Measurements", blocks)),
        source=str(found.file),
    )


def _measured(text: str, *, is_number: bool) -> Cell:
    value = _number(text) if is_number else None
    return blank_cell(text) if value is None else number_cell(value, text)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


# --- the index --------------------------------------------------------------------------------------------------------


def _index(contents: Contents, places: _Places) -> Page:
    counted = published_numbers(
        (table.record.name, table.record.document) for table in contents.tables if table.is_published
    )
    papers = dict.fromkeys([*(number.paper for number in counted), *map(_paper, contents.tables)])
    by_paper = {paper: [table for table in contents.tables if _paper(table) == paper] for paper in papers}
    sections: list[Section] = [
        *section("trouble", "What could not be read", [_left_out(contents.left_out)]),
        *section("papers", "Papers", [_papers_table(counted)]),
        *(
            part
            for paper, tables in by_paper.items()
            for part in section(f"paper-{paper}", _title(paper), [_tables_of(paper, tables, places)])
        ),
        *section("benchmarks", "Benchmarks", [_benchmarks(contents.benchmarks, places)]),
        *section("sweeps", "Sweeps", [_sweeps(contents.sweeps, places)]),
        *section("runs", "Runs", [_runs(contents.runs, places)]),
    ]
    facts = {
        "tables": len(contents.tables),
        "sweeps": len(contents.sweeps),
        "runs": len(contents.runs),
        "benchmarks": len(contents.benchmarks),
    }
    return Page(
        subject="book",
        title="Papers, as they ran here",
        lead=count_in_words(counted),
        badges=(),
        facts=tuple(Fact(name=name, text=str(count)) for name, count in facts.items()),
        sections=tuple(sections),
        source=str(contents.root),
        book=INDEX,
    )


def _paper(table: MadeTable) -> str:
    return str(table.record.document["paper"])


def _title(paper: str) -> str:
    return PAPERS[paper].title if paper in PAPERS else paper


def _left_out(texts: Sequence[str]) -> Notice | None:
    return Notice(text=plural(len(texts), "record"), tone="bad", points=tuple(texts)) if texts else None


def _papers_table(counted: Sequence[Any]) -> Table:
    rows = []
    for paper in dict.fromkeys(number.paper for number in counted):
        own = Counter(number.outcome for number in counted if number.paper == paper)
        made = own.total() - own[NOT_MADE]
        rows.append(
            (
                text_cell(_title(paper), href=f"#paper-{paper}" if made else ""),
                number_cell(own.total(), str(own.total())),
                *map(_count, (own[name] for name in OUTCOMES)),
            )
        )
    return Table(
        name="papers",
        title="Published numbers by the verdict of ours, at the paper's schedule",
        columns=(Column(name="paper"), *_counts(("numbers", *OUTCOMES))),
        rows=tuple(rows),
        notes=("A number that was made here and elsewhere counts as it was made here.",),
    )


_SHORT = {"within tolerance": "within", "no tolerance stated": "no tolerance"}


def _counts(names: Iterable[str]) -> tuple[Column, ...]:
    return tuple(Column(name=name, label=_SHORT.get(name, ""), numeric=True) for name in names)


def _count(value: int) -> Cell:
    return number_cell(value, str(value), tone="" if value else "muted")


def _tables_of(paper: str, tables: Sequence[MadeTable], places: _Places) -> Table | None:
    if not tables:
        return None
    kinds = [name for name in OUTCOMES if name != NOT_MADE]
    rows = []
    for table in tables:
        cells = [cell for _, _, cell in run_cells(table.record.document) if cell["published"] is not None]
        found = Counter(outcome_of(verdict_of(cell)) for cell in cells)
        made, seconds = table.made, table.made.get("seconds")
        document = table.record.document
        rows.append(
            (
                text_cell(table.record.name, note=str(document.get("caption") or ""), href=str(places.of(table))),
                text_cell(" ".join((table.scale, *map(str, document.get("overrides") or ())))),
                number_cell(len(cells), str(len(cells))),
                *map(_count, (found[name] for name in kinds)),
                number_cell(seconds, duration(seconds)) if seconds else number_cell(None),
                text_cell("; ".join(made.get("machines") or ())),
                text_cell(", ".join(commit[:7] for commit in made.get("commits") or ())),
                text_cell(made.get("last_day")),
                text_cell("here" if table.is_here else "elsewhere"),
            )
        )
    columns = (
        Column(name="table"),
        Column(name="scale"),
        *_counts(("numbers", *kinds)),
        Column(name="seconds", label="cost", numeric=True, hint="time of its runs, one after another"),
        Column(name="machine"),
        Column(name="commit", code=True),
        Column(name="day"),
        Column(name="made"),
    )
    return Table(name=f"tables-{paper}", title="", columns=columns, rows=tuple(rows)).without_empty_columns()


def _benchmarks(files: Sequence[Measurements], places: _Places) -> Table | None:
    if not files:
        return None
    rows = tuple(
        (
            text_cell(found.file.stem, href=str(places.of(found))),
            number_cell(len(found.rows), f"{len(found.rows):,}"),
            text_cell("; ".join(found.distinct("machine"))),
            text_cell(max(found.distinct("date"), default="")),
        )
        for found in files
    )
    columns = (Column(name="file"), Column(name="rows", numeric=True), Column(name="machine"), Column(name="last day"))
    return Table(name="benchmarks", title="", columns=columns, rows=rows)


def _sweeps(sweeps: Sequence[SweepRecord], places: _Places) -> Table | None:
    if not sweeps:
        return None
    rows = []
    for sweep in sweeps:
        states = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in sweep.runs).items())
        typed = command("sweep", sweep.experiment, *sweep.overrides) if sweep.experiment else ""
        rows.append(
            (
                text_cell(sweep.name, href=str(places.of(sweep))),
                text_cell(typed),
                number_cell(len(sweep.runs), str(len(sweep.runs))),
                text_cell(states),
            )
        )
    columns = (
        Column(name="sweep"),
        Column(name="command", code=True),
        Column(name="runs", numeric=True),
        Column(name="states"),
    )
    return Table(name="sweeps", title="", columns=columns, rows=tuple(rows))


def _runs(runs: Sequence[RunRecord], places: _Places) -> Table | None:
    if not runs:
        return None
    rows = []
    for run in runs:
        name, value = run.headline
        quantities = _quantities([run])
        rows.append(
            (
                text_cell(run.experiment or run.name, note=run.name, href=str(places.of_run(run))),
                text_cell(run.data),
                text_cell(run.scale),
                text_cell("" if run.seed is None else str(run.seed)),
                parts.state_cell(run),
                number_cell(None)
                if value is None
                else number_cell(value, quantities.with_unit(name, value), note=name),
                number_cell(run.seconds, None if run.seconds is None else duration(run.seconds)),
                text_cell(run.updated.replace("T", " ")[:16]),
            )
        )
    columns = (
        Column(name="run"),
        Column(name="data"),
        Column(name="scale"),
        Column(name="seed", numeric=True),
        Column(name="state"),
        Column(name="result", numeric=True),
        Column(name="seconds", label="time", numeric=True),
        Column(name="updated"),
    )
    return Table(name="runs", title="", columns=columns, rows=tuple(rows))


# --- size -------------------------------------------------------------------------------------------------------------

_CHARTS = (None, 4, 2, 1, 0)
_PICTURES = (None, 4, 1, 0, 0)
_SECTIONS_LEFT_OUT = (
    (),
    ("checkpoints",),
    ("checkpoints", "environment"),
    ("checkpoints", "environment", "configuration"),
    ("checkpoints", "environment", "configuration"),
)
LEVELS = len(_CHARTS)
"""Levels of detail, from 0: how much of a page is left out so that the book stays small."""


def at_level(page: Page, level: int) -> Page:
    """Return the page with as much as a level of detail keeps, and a word about what it leaves out. An index stays whole."""
    if level == 0 or page.subject == "book":
        return page
    gone = _SECTIONS_LEFT_OUT[level]
    named = [item.title.lower() for item in page.sections if item.slug in gone]
    kept = replace(page, sections=tuple(item for item in page.sections if item.slug not in gone))
    most_charts, most_pictures = _CHARTS[level] or 0, _PICTURES[level] or 0
    counts = {"curves": 0, "pictures": 0}

    def thinner(block: Block) -> Block | None:
        if isinstance(block, Charts):
            counts["curves"] += len(block.charts[most_charts:])
            return replace(block, charts=block.charts[:most_charts]) if most_charts else None
        if isinstance(block, Gallery):
            counts["pictures"] += len(block.pictures[most_pictures:])
            return replace(block, pictures=block.pictures[:most_pictures]) if most_pictures else None
        return block

    thin = _with_blocks(kept, thinner)
    left_out = [*(f"{count} {name}" for name, count in counts.items() if count), *named]
    if not left_out:
        return page
    whole = command("report", page.source)
    notice = Notice(
        text=f"Left out here, so that the book stays small: {', '.join(left_out)}. `{whole}` shows all.", tone="muted"
    )
    return replace(thin, sections=(*thin.sections, *section("left-out", "Left out", [notice])))
