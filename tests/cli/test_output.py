"""A table on a terminal and in a pipe."""

from __future__ import annotations

import sys

import pytest

from paperbench.cli.output import folded_table, pair_lines, print_table
from paperbench.report.tables import Cell, Column, Table, text_cell

TABLE = Table(
    title="the table",
    columns=(Column(name="row"), Column(name="ours", numeric=True), Column(name="verdict")),
    rows=(
        (text_cell("[one]"), Cell(text="69.12", value=69.123), text_cell("within tolerance", tone="good")),
        (text_cell("two"), Cell(text="", value=None), text_cell("missing", tone="muted")),
    ),
    notes=("[1] a note",),
)


def test_in_a_pipe_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TABLE)
    assert capsys.readouterr().out.splitlines() == [
        "the table",
        "row    ours   verdict",
        "[one]  69.12  within tolerance",
        "two    -      missing",
        "[1] a note",
    ]


def test_on_a_terminal_nothing_is_taken_for_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(TABLE)
    shown = capsys.readouterr().out
    for text in ("the table", "[one]", "69.12", "within tolerance", "missing", "[1] a note"):
        assert text in shown


def test_pairs_are_folded_below_themselves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    pair_lines(
        [("train", ", ".join(f"class-{number} 3" for number in range(6))), ("a longer name", "1"), ("empty", "")]
    )
    assert capsys.readouterr().out.splitlines() == [
        "  train          class-0 3, class-1 3, class-2 3, class-3 3,",
        "                 class-4 3, class-5 3",
        "  a longer name  1",
        "  empty",
    ]


@pytest.mark.parametrize("columns", [60, 80, 118])
def test_a_folded_table_breaks_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    words = "Table 2. Fast R-CNN with ZF, trained on VOC07 trainval; proposals in training, at test"
    folded_table(("name", "short", "what"), [["faster-rcnn/table-2-of-the-appendix", "54 runs, made elsewhere", words]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("faster-rcnn/table-2-of-the-appendix  ")
    assert "proposals" in "\n".join(lines)
    assert " ".join(line[lines[0].index("what") :].strip() for line in lines[1:]).split() == words.split()
    assert max(map(len, lines)) <= columns
