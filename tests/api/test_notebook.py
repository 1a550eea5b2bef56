"""Progress and tables in a notebook, without one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import paperbench
from paperbench.api.notebook import NotebookReporter, html_table, inside_notebook


class Cell:
    """An output cell: every content that was shown, the last one standing."""

    def __init__(self) -> None:
        self.contents: list[str] = []

    def show(self, content: str) -> object:
        self.contents.append(content)
        return self.contents.append


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_is_shown_in_one_cell_that_is_rewritten() -> None:
    cell, clock = Cell(), Clock()
    reporter = NotebookReporter(cell.show, clock=clock)  # type: ignore[arg-type]

    reporter.start("vae · vae-train", {"data": "1,797 digits"})
    for step in range(1, 101):
        clock.now += 0.01
        reporter.progress("train", step, 100, {"loss": 1.5})
    reporter.message("a checkpoint was damaged")
    reporter.close()

    assert "1,797 digits" in cell.contents[0]
    assert "<progress value='100' max='100'>" in cell.contents[-1]
    assert "loss 1.5" in cell.contents[-1]
    assert "a checkpoint was damaged" in cell.contents[-1]
    assert len(cell.contents) < 10  # a hundred steps in a second rewrite the cell a few times, not a hundred


def test_texts_are_escaped() -> None:
    cell = Cell()
    reporter = NotebookReporter(cell.show)  # type: ignore[arg-type]
    reporter.start("<b>", {"<i>": "a & b"})

    assert "&lt;b&gt;" in cell.contents[-1]
    assert "a &amp; b" in cell.contents[-1]
    assert html_table(("<x>",), [("<y>",)]) == (
        "<table><thead><tr><th>&lt;x&gt;</th></tr></thead><tbody><tr><td>&lt;y&gt;</td></tr></tbody></table>"
    )


def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not inside_notebook()
    for shell, expected in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=object()), True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert inside_notebook() is expected


def test_the_tables_that_can_be_made_show_themselves() -> None:
    found = paperbench.reproduce()

    assert found[0]["name"] in repr(found)
    shown = found._repr_html_()
    assert shown.count("<tr>") == len(found) + 1
    assert "runs at scale=paper" in shown
    assert all(item["caption"].replace("<", "&lt;").replace("'", "&#x27;") in shown for item in found)
