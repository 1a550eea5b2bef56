"""Files of `conf/reproduce`: what they come to, and what is said of one that is wrong."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperbench.config.paths import search_path, shipped_conf
from paperbench.errors import ConfigError
from paperbench.report import layout as layouts
from paperbench.report.layout import Layout, load, merged, names, read
from paperbench.report.published import all_published

SHIPPED = names((shipped_conf(),))

SOUND: dict[str, Any] = {
    "paper": "faster-rcnn",
    "table": "Table 9",
    "experiment": "faster-rcnn",
    "columns": {"mAP": {}},
    "rows": [
        {"row": "lambda 1", "overrides": ["model.rpn.loss_weight=1.0"]},
        {"row": "lambda 10", "overrides": ["model.rpn.loss_weight=10.0"]},
    ],
    "scales": {"smoke": {}, "short": {"seeds": 3, "cost": {"seconds": 60, "machine": "two cores"}}, "paper": {}},
}


def write(folder: Path, content: Any, name: str = "faster-rcnn/mine") -> Path:
    file = folder / "conf" / "reproduce" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return file


def layout_of(folder: Path, **changes: Any) -> Layout:
    return read("faster-rcnn/mine", write(folder, {**copy.deepcopy(SOUND), **changes}))


def rows_with(**changes: Any) -> list[dict[str, Any]]:
    rows = copy.deepcopy(SOUND["rows"])
    rows[0].update(changes)
    return rows


def test_a_figure_of_pictures_is_shown_as_itself_and_keeps_the_numbers_of_another_table(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, shown_as={"table": "Figure 7", "caption": "pictures"})

    assert (layout.table, layout.caption) == ("Figure 7", "pictures")
    assert {cell.published.table for cell in layout.cells("short") if cell.published} == {"Table 9"}
    assert layout.not_reached() == ()
    with pytest.raises(ConfigError, match=r"shown_as"):
        layout_of(tmp_path, shown_as={"table": "Figure 7"})


def test_no_two_reproductions_are_shown_as_the_same() -> None:
    shown = [(found.paper, found.table, found.caption) for found in (read(*item) for item in SHIPPED.items())]
    assert len(set(shown)) == len(shown)


def test_a_figure_without_printed_numbers_brings_its_caption(tmp_path: Path) -> None:
    unprinted = [{**row, "published": None} for row in SOUND["rows"]]
    columns = {"recall": {"metric": "proposals/AR@100"}}
    layout = layout_of(tmp_path, table="Figure 4", caption="curves", rows=unprinted, columns=columns)
    assert layout.caption == "curves"
    assert layout.source.startswith("Faster R-CNN")
    assert layout.not_reached() == ()
    assert all(cell.published is None for cell in layout.cells("short"))

    with pytest.raises(ConfigError, match=r"caption: conf/paper/faster-rcnn\.yaml has Table 9 with its own"):
        layout_of(tmp_path, caption="curves")
    with pytest.raises(ConfigError, match="Figure 4"):
        layout_of(tmp_path, table="Figure 4", rows=unprinted, columns=columns)
    with pytest.raises(ConfigError, match="lambda 1"):
        layout_of(tmp_path, table="Figure 4", caption="curves", columns=columns)


# --- shipped files ----------------------------------------------------------------------------------------------------


WITHOUT_NUMBERS = {"distill/temperature", "faster-rcnn/figure-4", "rca/classifiers", "rca/references"}
"""The paper says in words which temperatures were best; it draws the recall of proposals and prints no number; of the reverse
classifiers and the number of references, it is known how they compare."""


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_stands_beside_published_numbers(name: str) -> None:
    layout = load(name)
    assert layout.caption
    assert layout.source
    for scale in layout.scales:
        cells = layout.cells(scale)
        assert cells
        assert any(cell.published for cell in cells) == (name not in WITHOUT_NUMBERS)
        assert all(cell.metric for cell in cells)
        assert layout.runs(scale) >= layout.scale(scale).seeds


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_begins_with_its_paper_and_a_command(name: str) -> None:
    lines = SHIPPED[name].read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# paper:    ")
    assert lines[1].startswith(f"# command:  paperbench reproduce {name}")


# --- what a file comes to ---------------------------------------------------------------------------------------------


def test_a_cell_is_the_overrides_of_file_column_and_row_at_its_scale(tmp_path: Path) -> None:
    layout = layout_of(
        tmp_path,
        overrides={"all": ["a=1", "b=1"], "paper": ["b=2"]},
        columns={"mAP": {"overrides": {"all": ["c=1"], "short": ["d=1"]}}},
        rows=rows_with(overrides={"all": ["c=2"], "short": ["e=1"]}),
    )
    first = layout.cells("short")[0]
    assert first.overrides == ("a=1", "b=1", "c=2", "d=1", "e=1", "scale=short")
    assert layout.cells("paper")[0].overrides == ("a=1", "b=2", "c=2", "scale=paper")
    assert layout.cells("paper")[1].overrides == (
        "a=1", "b=2", "c=1", "model.rpn.loss_weight=10.0", "scale=paper"
    )  # fmt: skip


def test_the_last_override_of_a_key_stands() -> None:
    assert merged(["a=1", "+b=1"], ["b=2"], ["a=[1,2]", "c=x=y"]) == ("a=[1,2]", "b=2", "c=x=y")


def test_the_published_number_and_its_metric_are_found_by_name(tmp_path: Path) -> None:
    cell = layout_of(tmp_path).cells("short")[0]
    assert cell.published is not None
    assert (cell.published.value, cell.metric) == (68.9, "voc07/mAP")
    other = layout_of(tmp_path, rows=rows_with(row="mine", published="lambda 100", metric="voc/mAP")).cells("short")[0]
    assert other.published is not None
    assert (other.row, other.published.value, other.metric) == ("mine", 69.1, "voc/mAP")


def test_a_row_of_ones_own_needs_no_published_number(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, metric="voc07/mAP", rows=rows_with(row="lambda 3", published=None))
    assert [cell.published is None for cell in layout.cells("short")] == [True, False]
    assert layout.caption.startswith("Weight lambda")


def test_the_metric_of_a_row_goes_before_the_columns(tmp_path: Path) -> None:
    columns = {"mAP": {"metric": "of/column"}, "second": {"metric": "of/column", "published": None}}
    rows = [
        {"row": "lambda 1"},
        {"row": "lambda 10", "metric": "of/row", "metrics": {"second": "of/both"}},
    ]
    layout = layout_of(tmp_path, columns=columns, rows=rows)
    assert [cell.metric for cell in layout.cells("short")] == ["of/column", "of/column", "of/row", "of/both"]


def test_a_row_may_have_some_columns_only(tmp_path: Path) -> None:
    columns = {"mAP": {}, "second": {"metric": "x", "published": None}}
    layout = layout_of(tmp_path, columns=columns, rows=rows_with(columns=["mAP"]))
    assert [(cell.row, cell.column) for cell in layout.cells("short")] == [
        ("lambda 1", "mAP"), ("lambda 10", "mAP"), ("lambda 10", "second")
    ]  # fmt: skip


def test_a_row_and_a_column_may_be_made_at_some_scales_only(tmp_path: Path) -> None:
    columns = {"mAP": {}, "second": {"metric": "x", "published": None, "scales": ["short"]}}
    layout = layout_of(tmp_path, columns=columns, rows=rows_with(scales=["smoke", "paper"]))
    made = {scale: [(cell.row, cell.column) for cell in layout.cells(scale)] for scale in layout.scales}
    assert made == {
        "smoke": [("lambda 1", "mAP"), ("lambda 10", "mAP")],
        "short": [("lambda 10", "mAP"), ("lambda 10", "second")],
        "paper": [("lambda 1", "mAP"), ("lambda 10", "mAP")],
    }
    assert [layout.columns_at(scale) for scale in layout.scales] == [("mAP",), ("mAP", "second"), ("mAP",)]
    assert {row for _, _, row, _ in layout.reached()} == {"lambda 1", "lambda 10"}
    only_paper = layout_of(tmp_path, rows=rows_with(scales=["paper"]))
    assert "lambda 1" not in [entry.row for entry in only_paper.not_reached()]
    with pytest.raises(ConfigError, match=r"rows \(lambda 1\)\.scales: no scale paper\. There are: smoke"):
        layout_of(tmp_path, rows=rows_with(scales=["paper"]), scales={"smoke": {}})


def test_rows_of_one_run_are_counted_once(tmp_path: Path) -> None:
    rows = [{"row": "lambda 1", "metric": "a"}, {"row": "lambda 10", "metric": "b"}, *rows_with()[:1]]
    rows[2]["row"] = "lambda 100"
    layout = layout_of(tmp_path, rows=rows)
    assert layout.runs("short") == 2 * 3
    assert layout.runs("short", seeds=1) == 2


def test_what_the_paper_prints_beyond_the_file_is_known(tmp_path: Path) -> None:
    assert [entry.row for entry in layout_of(tmp_path).not_reached()] == ["lambda 0.1", "lambda 100"]


def test_what_is_reached_is_printed() -> None:
    printed = {entry.place for entry in all_published()}
    found = layouts.reached()
    assert found
    assert found <= printed


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("faster-rcnn/table8", "faster-rcnn/table-8"),
        ("faster-rcn/table-8", "faster-rcnn/table-8"),
        ("table-8", "faster-rcnn/table-8"),
        ("faster-rcnn", "faster-rcnn/table-2, faster-rcnn/table-3"),
    ],
)
def test_a_name_that_is_none_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: no such reproduction. Nearest: .*{near}"):
        load(name)


def test_ones_own_folder_adds_and_shadows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SOUND)
    write(tmp_path, SOUND, "faster-rcnn/table-8")
    assert load("faster-rcnn/mine").file.is_relative_to(tmp_path)
    assert load("faster-rcnn/table-8").table == "Table 9"
    assert load("faster-rcnn/table-9").file.is_relative_to(shipped_conf())
    assert search_path()[0] == tmp_path / "conf"


# --- faulty files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colums": {}}, "mine.yaml:\\d+: colums: no such key. Nearest: columns"),
        (
            {"rows": rows_with(overides=[])},
            r"mine.yaml:\d+: rows.0 \(lambda 1\).overides: no such key. Nearest: overrides",
        ),
        ({"columns": {"mAP": {"metrik": "x"}}}, r"mine.yaml:\d+: columns.mAP.metrik: no such key. Nearest: metric"),
        ({"rows": []}, "rows: is empty"),
        ({"scales": {}}, "scales: is empty"),
        ({"scales": {"tiny": {}}}, "scales.tiny: expected one of smoke, short, paper, given tiny"),
        ({"scales": {"short": {"seeds": 0}}}, "scales.short.seeds: expected a whole number above 0, given 0"),
        ({"scales": {"short": {"cost": "an hour"}}}, "scales.short.cost: .*not measured"),
        ({"scales": {"short": {"cost": {"seconds": 3}}}}, "scales.short.cost.machine: is missing"),
        (
            {"overrides": {"papre": []}},
            "overrides.papre: expected one of all, smoke, short, paper, given papre. Nearest: paper",
        ),
        ({"overrides": "a=1"}, "overrides: expected keys and values, given a=1"),
        ({"deviations": [{"txt": "x"}]}, "deviations.0.txt: no such key. Nearest: text"),
        ({"paper": "fastr-rcnn"}, "paper: no paper fastr-rcnn. Nearest: fast.*-rcnn"),
        ({"table": "Table 99"}, "table: conf/paper/faster-rcnn.yaml has no table 'Table 99'; nearest: 'Table 9'"),
        ({"rows": rows_with(row="lambda 2")}, r"rows \(lambda 2\): .* has no row 'lambda 2'; nearest.*`published:`"),
        ({"columns": {"map": {}}}, "has no column 'map'; nearest: 'mAP'"),
        ({"rows": rows_with(columns=["map"])}, r"rows \(lambda 1\).columns: no column map. Nearest: mAP"),
        ({"rows": rows_with(metrics={"mapp": "x"})}, r"rows \(lambda 1\).metrics: no column mapp. Nearest: mAP"),
        ({"rows": rows_with(row="lambda 10")}, "rows: lambda 10 stands there twice"),
        ({"columns": {"x": {"published": None}}}, "column x has no metric; give the column, the row or the file one"),
        (
            {"comparisons": [{"row": "c", "of": "lambda 10", "against": "lamda 1"}]},
            r"comparisons \(c\).against: no row lamda 1. Nearest: lambda 1",
        ),
    ],
)
def test_faults_are_named_with_file_key_and_nearest_names(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        layout_of(tmp_path, **changes)
    assert all(re.search(r"mine\.yaml(:\d+)?: ", mistake) for mistake in caught.value.mistakes)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        layout_of(tmp_path, rows=rows_with(overides=[]), experimnt="x")
    assert len(caught.value.mistakes) == 2


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- 1", "expected a section with the keys"), ("", "mine")]
)
def test_a_file_that_holds_no_layout_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read("faster-rcnn/mine", write(tmp_path, text))


def test_a_scale_that_a_table_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, scales={"paper": {}})
    with pytest.raises(ConfigError, match="has no scale short; it has paper"):
        layout.scale("short")
