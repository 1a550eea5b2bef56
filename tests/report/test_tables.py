"""One table as Markdown and as CSV."""

from __future__ import annotations

import csv
import io

import pytest

from paperbench.report.tables import Cell, Column, Table, blank_cell, text_cell, to_csv, to_markdown

THIRD = 1 / 3
TABLE = Table(
    title="a `table` of <ours>",
    columns=(Column(name="row"), Column(name="ours", numeric=True), Column(name="notes")),
    rows=(
        (text_cell("plain"), Cell(text="0.33", value=THIRD), blank_cell("")),
        (text_cell("with, comma | bar"), Cell(text="", value=None), blank_cell("")),
    ),
    notes=("a *starred* note",),
)


def test_csv_holds_numbers_in_full_and_nothing_for_what_is_absent() -> None:
    header, first, second = csv.reader(io.StringIO(to_csv(TABLE)))
    assert header == ["row", "ours", "notes"]
    assert float(first[1]) == THIRD
    assert second == ["with, comma | bar", "", ""]


def test_markdown_keeps_columns_apart_and_takes_nothing_for_markup() -> None:
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == "# a \\`table\\` of \\<ours>"
    assert lines[3] == "| --- | ---: | --- |"
    assert lines[4] == "| plain | 0.33 |  |"
    assert lines[5] == "| with, comma \\| bar |  |  |"
    assert lines[-1] == "* a \\*starred\\* note"


def test_columns_without_any_text_can_be_left_out() -> None:
    assert [column.name for column in TABLE.without_empty_columns().columns] == ["row", "ours"]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells for 2 columns"):
        Table(title="t", columns=(Column(name="a"), Column(name="b")), rows=((text_cell("x"),),))
