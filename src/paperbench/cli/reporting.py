"""`paperbench report`: write a report and print its files."""

from __future__ import annotations

from pathlib import Path

from paperbench.cli.guard import emit_json
from paperbench.cli.output import line
from paperbench.config.paths import short
from paperbench.report.html.quantities import size
from paperbench.report.html.writing import write_report


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
