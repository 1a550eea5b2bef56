"""A sweep and a reproduced table as a notebook uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from paperbench.api.notebook import html_table
from paperbench.api.run import Run, Runs
from paperbench.config.words import counted
from paperbench.records.record import read_run
from paperbench.records.sweeps import SweepEntry, read_sweep


class Sweep(Runs):
    """The runs of a sweep in the order of its grid; `failures` says why runs failed, by folder."""

    def __init__(self, directory: Path) -> None:
        record = read_sweep(directory)
        keys = list(dict.fromkeys(key for entry in record.entries for key in entry.labels))
        super().__init__([_run_of(entry) for entry in record.entries], keys)
        self.path = directory

    @cached_property
    def failures(self) -> dict[Path, str]:
        """The reason of every run that failed."""
        return {run.path: run.message for run in self if run.state == "failed"}

    def __repr__(self) -> str:
        done = sum(run.state == "done" for run in self)
        return f"<Sweep of {len(self)} runs, {done} done, {self.path}>"


def _run_of(entry: SweepEntry) -> Run:
    return Run(read_run(entry.directory, name=entry.hash, labels=entry.labels))


class Reproduction:
    """A published table as it was made: the paper's numbers, ours, and a verdict for each."""

    def __init__(self, document: Mapping[str, Any], directory: Path, runs: Sequence[Run]) -> None:
        self.document = dict(document)
        """The content of `reproduction.json`."""
        self.path = directory
        self.runs = Runs(runs)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One dict a number: `row`, `column`, `paper`, `ours`, `verdict` and the rest of its entry in the document."""
        from paperbench.report.reproduction_document import cells_of

        return [{"row": row, "column": column, **cell} for row, column, cell in cells_of(self.document)]

    def __repr__(self) -> str:
        return f"<Reproduction of {self.document.get('name', '')}, {len(self.rows)} numbers, {self.path}>"

    def _repr_html_(self) -> str:
        from paperbench.report.reproduction_document import display_table, title

        table = display_table(self.document)
        rows = ([cell.text for cell in row] for row in table.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
        return html_table([column.name for column in table.columns], rows, caption=title(self.document)) + notes


class Reproductions(list[dict[str, Any]]):
    """The tables that can be made, a dict each: its `name`, `table`, `caption`, and at each of its `scales` runs and cost."""

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'tables')} that can be made: {', '.join(str(item['name']) for item in self)}>"

    def _repr_html_(self) -> str:
        scales = list(dict.fromkeys(at["scale"] for item in self for at in item["scales"]))
        rows = (
            [
                item["name"],
                *(next((str(at["runs"]) for at in item["scales"] if at["scale"] == scale), "") for scale in scales),
                f"{item['table']}. {item['caption']}",
            ]
            for item in self
        )
        return html_table(["name", *(f"runs at scale={scale}" for scale in scales), "what"], rows)
