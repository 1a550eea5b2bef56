"""Write a report: the page, its Markdown and a CSV file for each of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from paperbench.config.paths import expanded
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.engine.outputs import output_file
from paperbench.errors import ConfigError, EnvironmentError_
from paperbench.records.metrics import MetricRegistry, all_metrics, metrics_of
from paperbench.records.record import RunRecord
from paperbench.records.sweeps import SweepRecord
from paperbench.report.html.page import Page
from paperbench.report.html.quantities import Quantities
from paperbench.report.html.render import GENERATOR, is_made_by, to_document, to_html
from paperbench.report.html.reproduction_page import page_of_reproduction
from paperbench.report.html.run_page import page_of_run
from paperbench.report.html.sources import ReproductionRecord, Source, load
from paperbench.report.html.sweep_page import page_of_sweep
from paperbench.report.tables import to_csv

FOLDER, STEM = "report", "report"
_TABLES = frozenset(
    {
        "metrics",
        "classes",
        "checkpoints",
        "runs",
        "settings",
        "all-metrics",
        "configuration",
        "environments",
        "table",
        "numbers",
    }
    | {"measurements"}
)
"""Every table that a report may have: those that one written before had, and this one has not, are removed."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files of a report, and its page."""

    page: Page
    html: Path
    markdown: Path
    tables: tuple[Path, ...]
    size: int


def write_report(source: Path, output: Path | None = None, *, metrics: MetricRegistry | None = None) -> Written:
    """Write a report on the run, sweep or reproduction in `source`.

    `output` is a folder, or a file that ends in `.html`; by default `<source>/report/`. What an earlier report left there is
    replaced. Raises `ConfigError` where `source` is nothing to report on, or `output` is something else's, `DataError` for a
    damaged record, and `EnvironmentError_` where the place cannot be written. Each file is written whole or not at all.
    """
    subject = load(source)
    html = _target(subject.directory, output)
    _refuse_foreign(html)
    made = datetime.now().astimezone()
    page = _page(subject, Quantities(metrics or _metrics_of(subject)))
    text = to_html(page, made=made)
    tables = {html.with_name(f"{html.stem}-{table.name}.csv"): to_csv(table) for table in page.tables()}
    document = html.with_suffix(".md")
    with _explain_os_errors():
        with explain_os_errors(html.parent):
            html.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(html, text)  # first: by it the files beside it are known as a report's, should this be interrupted
        write_atomic(document, to_document(page, html=html.name, made=made))
        for path, content in tables.items():
            write_atomic(path, content)
    _remove_stale(html, set(tables))
    return Written(page=page, html=html, markdown=document, tables=tuple(tables), size=html.stat().st_size)


@contextmanager
def _explain_os_errors() -> Iterator[None]:
    """Add the remedy to an error about a place that cannot be written: another place."""
    try:
        yield
    except EnvironmentError_ as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):
            raise
        place = f"{cause.filename}: " if cause.filename else ""
        raise EnvironmentError_(
            f"cannot write the report: {place}{cause.strerror or cause}; name another place with --output"
        ) from cause


def _metrics_of(source: Source) -> MetricRegistry:
    tasks = {run.task for run in ((source,) if isinstance(source, RunRecord) else source.runs) if run.task}
    return metrics_of(tasks.pop()) if len(tasks) == 1 else all_metrics()


def _page(subject: Source, quantities: Quantities) -> Page:
    if isinstance(subject, ReproductionRecord):
        return page_of_reproduction(subject, quantities)
    if isinstance(subject, SweepRecord):
        return page_of_sweep(subject, quantities)
    return page_of_run(subject, quantities)


def _target(source: Path, output: Path | None) -> Path:
    if output is None:
        return source / FOLDER / f"{STEM}.html"
    output = expanded(output)
    if output.suffix.lower() in (".html", ".htm") and not output.is_dir():
        return output
    if output.is_file():
        raise ConfigError(f"--output {output}: is a file and no .html; name a folder, or a file that ends in .html")
    return output / f"{STEM}.html"


def _refuse_foreign(html: Path) -> None:
    """Raise `ConfigError` for a page, or files beside it, that no report wrote: by its page they are known as a report's."""
    try:
        output_file(html, what="a report", is_ours=partial(is_made_by, GENERATOR))
        for path in (html.with_suffix(".md"), *(_table(html, name) for name in sorted(_TABLES))):
            output_file(path, what="part of a report", is_ours=lambda path: html.exists())
    except EnvironmentError_ as error:
        raise EnvironmentError_(f"cannot write the report: {error}") from error


def _table(html: Path, name: str) -> Path:
    return html.with_name(f"{html.stem}-{name}.csv")


def _remove_stale(html: Path, written: set[Path]) -> None:
    for name in _TABLES:
        path = _table(html, name)
        if path not in written:
            with suppress(OSError):
                path.unlink()
