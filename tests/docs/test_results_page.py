"""`docs/results.md` and the README's excerpt are what the command makes of `results/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import results_page
from benchmarks.results_page import (
    PAGE,
    README,
    RESULTS,
    excerpt,
    numbers,
    page,
    with_excerpt,
)

from paperbench.report.outcomes import count_in_words, outcome_of
from paperbench.report.results import Kept, read_all
from paperbench.report.verdict import Verdict

MADE = {
    "commits": ["0123456789abcdef"], "local_changes": False, "machines": ["Z80, 2 cores"], "first_day": "2001-02-03",
    "last_day": "2001-02-03", "runs": 3, "unfinished": 1, "seconds": 7200,
}  # fmt: skip


def cell(verdict: str, value: float = 2.0, **changes: Any) -> dict[str, Any]:
    return {
        "published": {"value": 2.1, "unit": "percent", "tolerance": 0.3, "seeds": 3}, "metric": "test/error",
        "values": [{"seed": 0, "value": value, "run": "stn-mnist/0"}], "n": 1, "mean": value, "interval": None,
        "interval_kind": "one seed", "difference": -0.1, "verdict": verdict, "departs": "", "deviations": [], "choices": [],
        "remarks": [], **changes,
    }  # fmt: skip


def words(found: Any) -> str:
    return " ".join(count_in_words(found).split())


def kept(**cells: Any) -> Kept:
    """Table 1 of the transformers, of which two rows were made on R."""
    rows = [{"row": row, "kind": "runs", "cells": {"R": found}} for row, found in cells.items()]
    document = {
        "name": "stn/table-1", "paper": "stn", "table": "Table 1", "caption": "Error", "source": "", "scale": "paper",
        "overrides": [], "columns": ["R"], "rows": rows, "remarks": [], "is_reproduction": False, "made": MADE,
    }  # fmt: skip
    return Kept(key="stn/table-1/paper", document=json.loads(json.dumps(document)), runs={})


def test_the_documents_are_what_the_command_writes() -> None:
    found = read_all(RESULTS)
    assert PAGE.read_text(encoding="utf-8") == page(found), "python -m benchmarks.results_page"
    readme = README.read_text(encoding="utf-8")
    assert readme == with_excerpt(readme, found), "python -m benchmarks.results_page"


def test_without_results_nothing_is_made() -> None:
    found = numbers([])
    assert len(found) > 300
    assert {number.outcome for number in found} == {"not made"}
    assert " 0 within tolerance" in words(found)
    assert f"; {len(found):,} not made yet." in words(found)
    assert "No table has been kept yet." in page([])


def test_every_verdict_beside_a_published_number_has_a_class() -> None:
    assert all(outcome_of(verdict) for verdict in Verdict if verdict is not Verdict.NOT_PUBLISHED)


def test_numbers_are_counted_by_verdict() -> None:
    item = kept(FCN=cell("within tolerance"), CNN=cell("outside tolerance, worse", 5.0))
    found = numbers([item])
    assert len(found) == len(numbers([]))
    assert [n.outcome for n in found if n.outcome != "not made"] == ["within tolerance", "outside"]
    assert "schedule: 1 within tolerance, 1 outside, 0 without a stated tolerance" in words(found)


def test_a_table_with_overrides_of_its_own_is_shown_and_not_counted() -> None:
    item = kept(FCN=cell("within tolerance, other settings"))
    other = Kept(key="stn/table-1/paper-12345678", document={**item.document, "overrides": ["optim.lr=1"]}, runs={})
    assert {number.outcome for number in numbers([other])} == {"not made"}
    assert "## stn/table-1 with optim.lr=1: Table 1. Error" in page([other])


def test_the_page_shows_who_made_a_table_its_numbers_and_what_is_known(tmp_path: Path) -> None:
    note = tmp_path / "stn/table-1/paper/note.md"
    note.parent.mkdir(parents=True)
    note.write_text("The paper says more.\n")
    text = page([kept(FCN=cell("within tolerance", choices=["momentum .9"]))], tmp_path)
    assert "## stn/table-1: Table 1. Error" in text
    assert (
        "Made by commit 0123456 on Z80, 2 cores; 2001-02-03; 3 runs, 2.0 hours; 1 of the runs is not at the end."
        in text
    )
    (line,) = [line for line in text.splitlines() if line.startswith("| FCN ")]
    assert [part.strip() for part in line.split("|")][1:5] == ["FCN", "2.1 ±0.3 %", "2.00", "1"]
    assert "within tolerance, 1 of the paper's 3 seeds, with 1 choice" in line
    assert text.rstrip().endswith("The paper says more.")


def test_the_readme_has_the_count_and_some_numbers() -> None:
    item = kept(FCN=cell("within tolerance"), CNN=cell("missing", values=[], n=0, mean=None, difference=None))
    text = with_excerpt(f"before\n{results_page.BEGIN}\nold\n{results_page.END}\nafter\n", [item])
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| stn/table-1 | FCN | 2.1 ±0.3 % | 2.00 | within tolerance, 1 of the paper's 3 seeds |" in text
    assert "| CNN |" not in excerpt([item])
    with pytest.raises(ValueError, match="needs the two markers once"):
        with_excerpt("no markers", [item])
