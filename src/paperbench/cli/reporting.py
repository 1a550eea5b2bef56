"""`paperbench report` and `book`: write them and print their files."""

from __future__ import annotations

from pathlib import Path

from paperbench.cli.guard import emit_json
from paperbench.cli.output import line
from paperbench.config.paths import short
from paperbench.engine.files import explain_os_errors
from paperbench.errors import ConfigError
from paperbench.report.html.quantities import plural, size
from paperbench.report.html.writing import write_report

ROOT = Path("outputs")
BENCHMARKS = Path("benchmarks/results")
"""Where a checkout of the program has its measurements."""


def report(source: Path, *, output: Path | None, json_output: bool) -> None:
    """Write the report and print the paths of its files."""
    written = write_report(source, output)
    if json_output:
        emit_json(
            {
                "kind": written.page.subject,
                "name": written.page.title,
                "report": str(written.html),
                "markdown": str(written.markdown),
                "tables": [str(path) for path in written.tables],
                "bytes": written.size,
                "left_out": list(written.page.left_out),
            }
        )
        return
    states = ", ".join(badge.text for badge in written.page.badges)
    line(f"{written.page.subject} {written.page.title}: {states}")
    line(f"  page    {short(written.html)} ({size(written.size)}; open it in a browser)")
    line(f"  text    {short(written.markdown)}")
    for path in written.tables:
        line(f"  table   {short(path)}")
    for text in written.page.left_out:
        line(f"  left out: {text}")


def book(root: Path | None, *, output: Path | None, benchmarks: Path | None, json_output: bool) -> None:
    """Write the book and print what is in it."""
    if benchmarks is not None and not benchmarks.is_dir():
        raise ConfigError(f"--benchmarks {short(benchmarks)}: no such folder; name one that holds CSV files")
    if root is None:  # without runs, the tables that travel with the program are a book too
        root = ROOT
        with explain_os_errors(root):
            root.mkdir(exist_ok=True)
    if benchmarks is None and BENCHMARKS.is_dir():
        benchmarks = BENCHMARKS
    from paperbench.report.html.book_writing import write_book  # composes layouts, which a report does not

    written = write_book(root, output, benchmarks=benchmarks)
    found = written.contents
    counts = {
        "table": len(found.tables), "sweep": len(found.sweeps), "run": len(found.runs), "benchmark": len(found.benchmarks),
    }  # fmt: skip
    if json_output:
        emit_json(
            {
                "index": str(written.index),
                "pages": written.pages,
                "bytes": written.size,
                "shortened": written.shortened,
                **{f"{name}s": count for name, count in counts.items()},
                "left_out": list(found.left_out),
            }
        )
        return
    line(f"book of {', '.join(plural(count, name) for name, count in counts.items())}")
    line(f"  index   {short(written.index)} (open it in a browser)")
    line(f"  size    {plural(written.pages, 'page')}, {size(written.size)}")
    if written.shortened:
        line(f"  {plural(written.shortened, 'page')} without all curves and pictures, so that it stays small")
    for text in found.left_out:
        line(f"  left out: {text}")
