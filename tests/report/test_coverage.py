"""Every published row is reached by a file of `conf/reproduce`, or says why none reaches it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperbench.report.coverage import Count, counts, faults
from paperbench.report.published import Place, Published, all_published, read


def test_every_published_row_is_reached_or_says_why_not() -> None:
    from paperbench.report.layout import reached

    assert faults(all_published(), reached()) == []


# --- the check itself -------------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"row": "made here", "values": {"mAP": 60, "AP50": 70}},
    {"row": "cited", "values": {"mAP": 50, "AP50": 65}, "unreproduced": "private data"},
]


def entries(folder: Path, *tables: dict[str, Any]) -> list[Published]:
    sound = {"table": "Table 1", "caption": "c", "unit": "percent", "direction": "higher", "sample": "n",
             "tolerance": 1.0, "rows": ROWS}  # fmt: skip
    path = folder / "p.yaml"
    content = {"paper": "p", "source": "s", "tables": [sound | changes for changes in tables or ({},)]}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read(path)


MADE: Place = ("p", "Table 1", "made here", "mAP")


def test_one_column_is_enough_to_reach_a_row(tmp_path: Path) -> None:
    assert faults(entries(tmp_path), {MADE}) == []


def test_a_row_that_nothing_reaches_and_nothing_excuses_is_a_fault(tmp_path: Path) -> None:
    [fault] = faults(entries(tmp_path), set())

    assert fault.startswith("conf/paper/p.yaml: Table 1, made here (mAP, AP50): no file of conf/reproduce reaches it")
    assert "unreproduced" in fault


def test_a_row_that_is_excused_and_reached_is_a_fault(tmp_path: Path) -> None:
    [fault] = faults(entries(tmp_path), {MADE, ("p", "Table 1", "cited", "AP50")})

    assert "Table 1, cited (mAP, AP50): conf/reproduce reaches AP50" in fault
    assert "take away `unreproduced: private data`" in fault


@pytest.mark.parametrize(
    ("place", "nearest"),
    [
        (("p", "Table 1", "made her", "mAP"), "nearest: p / Table 1 / made here / mAP"),
        (("q", "Table 1", "made here", "mAP"), r"conf/paper/q\.yaml has nothing like it"),
    ],
)
def test_a_place_that_no_paper_prints_is_a_fault(tmp_path: Path, place: Place, nearest: str) -> None:
    [fault] = faults(entries(tmp_path), {MADE, place})
    assert re.search(nearest, fault)


def test_a_row_in_two_units_counts_in_each(tmp_path: Path) -> None:
    seconds = {"caption": "times", "unit": "s", "rows": [{"row": "made here", "values": {"time": 1}}]}
    both = entries(tmp_path, {}, seconds)

    [fault] = faults(both, {MADE})
    assert "Table 1, made here (time)" in fault
    assert faults(both, {MADE, ("p", "Table 1", "made here", "time")}) == []
    assert counts(both) == {"p": Count(numbers=5, rows=3, reproduced=2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [{"row": "lambda 11"}]}, "Table 9 has no row 'lambda 11'; nearest: 'lambda 1', 'lambda 10'"),
        ({"table": "Table 99"}, r"faster-rcnn\.yaml has no table 'Table 99'; nearest: 'Table 9'"),
        ({"columns": {"map50": {}}}, "Table 9, lambda 10 has no column 'map50'; nearest: 'mAP'"),
    ],
)
def test_a_reproduction_of_a_row_that_is_not_printed_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    from paperbench.errors import ConfigError
    from paperbench.report.layout import read as read_layout

    sound = {"paper": "faster-rcnn", "table": "Table 9", "experiment": "faster-rcnn", "metric": "voc07/mAP",
             "columns": {"mAP": {}}, "rows": [{"row": "lambda 10"}], "scales": {"paper": {}}}  # fmt: skip
    file = tmp_path / "table-9.yaml"
    file.write_text(yaml.safe_dump(sound))
    assert read_layout("faster-rcnn/table-9", file).rows == ("lambda 10",)

    file.write_text(yaml.safe_dump(sound | change))
    with pytest.raises(ConfigError, match=message):
        read_layout("faster-rcnn/table-9", file)
