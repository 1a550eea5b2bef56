"""Published numbers: looked up by name, drawn as curves, held against exactly the runs they belong to; faulty files named."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperbench.errors import DataError
from paperbench.report import published
from paperbench.report.published import curve, find, matching, read, table, tables

VGG_07: dict[str, Any] = {
    "scale": "paper",
    "data": {
        "name": "voc", "year": "2007", "train_split": "trainval", "test_split": "test", "classes": [],
        "max_train_images": 0, "max_test_images": 0, "short_side": 600,
    },
    "train": {"schedule": "alternating", "alternation": {"detector_proposals": "rpn"}},
    "model": {
        "name": "faster-rcnn", "backbone": "vgg16", "shared": True, "stages": 2,
        "anchors": {"sizes": [128.0, 256.0, 512.0], "ratios": [0.5, 1.0, 2.0]},
        "rpn": {"loss_weight": 10.0, "normalisation": "paper", "post_nms_topk_test": 300},
    },
}  # fmt: skip


def changed(**changes: Any) -> dict[str, Any]:
    """`VGG_07` with dotted keys, dots written as double underscores, replaced."""
    config = copy.deepcopy(VGG_07)
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = config
        for name in parents:
            section = section[name]
        section[last] = value
    return config


def values(config: dict[str, Any]) -> dict[str | None, float]:
    return {entry.metric: entry.value for entry in matching(config)}


# --- what applies to a run --------------------------------------------------------------------------------------------


def test_the_run_of_the_paper_is_held_against_table_3_and_table_6() -> None:
    found = [entry for entry in matching(VGG_07) if entry.table != "Table 5"]
    assert len(found) == 21
    assert (found[0].metric, found[0].value, found[0].table) == ("voc07/mAP", 69.9, "Table 3")
    assert values(VGG_07)["voc07/AP/tvmonitor"] == 67.6


def test_other_settings_are_held_against_their_own_rows() -> None:
    zf = values(changed(model__backbone="zf"))
    assert (zf["voc07/mAP"], zf["seconds/total"]) == (59.9, 59)
    assert values(changed(model__backbone="zf", model__shared=False)) == {"voc07/mAP": 58.7}
    assert values(changed(model__rpn__loss_weight=0.1)) == {"voc07/mAP": 67.2}
    assert values(changed(model__anchors={"sizes": [256], "ratios": [1]})) == {"voc07/mAP": 66.7}
    assert values(changed(model__anchors={"sizes": (128.0, 256.0, 512.0), "ratios": (1.0,)})) == {"voc07/mAP": 69.8}


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": "short"},
        {"train__schedule": "joint"},
        {"data__year": "2012"},
        {"data__year": 2007},
        {"data__max_test_images": 10},
        {"data__classes": ["cat"]},
        {"model__backbone": "small"},
        {"model__anchors__sizes": [128, 256]},
        {"model__rpn__normalisation": "sampled"},
        {"model__rpn__post_nms_topk_test": False},
    ],
)
def test_a_run_that_differs_is_held_against_nothing(changes: dict[str, Any]) -> None:
    assert matching(changed(**changes)) == []


def test_a_configuration_without_the_keys_is_held_against_nothing() -> None:
    assert matching({}) == []
    assert matching({"data": "voc", "model": None}) == []


def test_agreement_is_judged_within_the_tolerance() -> None:
    entry = matching(VGG_07)[0]
    assert entry.agrees(69.9 + 1.2)
    assert entry.agrees(69.9 - 1.2)
    assert entry.agrees(71.2) is False
    assert replace(entry, tolerance=None).agrees(0.0) is None


# --- looking up -------------------------------------------------------------------------------------------------------


def test_a_number_is_found_where_it_is_printed() -> None:
    entry = find("stn", "Table 1", "ST-CNN Aff", "RTS")

    assert (entry.value, entry.unit, entry.direction, entry.tolerance) == (0.5, "percent", "lower", 0.2)
    assert (entry.seeds, entry.test_size) == (3, 10000)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("snt", "Table 1", "FCN", "R"), "^conf/paper has no paper 'snt'; nearest: .*'stn'"),
        (("stn", "table 11", "FCN", "R"), r"conf/paper/stn\.yaml has no table 'table 11'; nearest: 'Table 1'"),
        (("stn", "Table 1", "ST-CNN Af", "R"), r"stn\.yaml: Table 1 has no row 'ST-CNN Af'; nearest: 'ST-CNN Aff'"),
        (("stn", "Table 1", "FCN", "RT"), "Table 1, FCN has no column 'RT'; nearest: 'RTS'"),
        (("stn", "Table 1", "FCN", "zzz"), "has no column 'zzz'; it has 'R', 'RTS', 'P', 'E'"),
        (("stn", "Table 1", "~~~", "R"), "has no row '~~~'; it has 'FCN', 'CNN'"),
    ],
)
def test_a_place_that_is_not_there_is_answered_with_the_nearest(place: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find(*place)


def test_tables_keep_the_order_of_the_paper() -> None:
    assert tables("stn")[:3] == ["Table 1", "Section 4.1", "Table 2"]
    assert list(table("stn", "Section 4.1")) == ["FCN", "CNN", "ST-FCN", "ST-CNN"]
    assert list(table("stn", "Table 1")["FCN"]) == ["R", "RTS", "P", "E"]


def test_a_table_in_two_units_has_the_columns_of_both() -> None:
    row = table("faster-rcnn", "Table 5")["ZF, RPN + Fast R-CNN"]

    assert (row["total"].unit, row["total"].value) == ("ms", 59.0)
    assert (row["rate"].unit, row["rate"].value) == ("fps", 17.0)


def test_a_curve_is_ready_to_be_drawn() -> None:
    xs, ys, error = curve("vae", "Figure 2", "MNIST, 20 latent, AEVB, test")

    assert xs == (1e6, 3.2e6, 1e7, 3.2e7, 1e8, 2.5e8)
    assert ys == (-124.2, -112.1, -104.8, -101.7, -100.2, -99.4)
    assert error == 0.1


@pytest.mark.parametrize("column", ["1e7", "10000000", 1e7, 10_000_000])
def test_a_point_of_a_curve_is_found_by_any_spelling_of_its_place(column: str | float) -> None:
    point = find("vae", "Figure 2", "MNIST, 20 latent, AEVB, test", column)

    assert (point.value, point.x, point.digitisation) == (-104.8, 1e7, 0.1)
    assert point.axis is not None
    assert (point.axis.unit, point.axis.scale) == ("count", "log")


def test_a_row_of_a_table_is_no_curve_and_a_curve_has_no_other_points() -> None:
    with pytest.raises(DataError, match="Table 1, FCN is a row of a table, not a curve"):
        curve("stn", "Table 1", "FCN")
    with pytest.raises(DataError, match="has no column '2e7'"):
        find("vae", "Figure 2", "MNIST, 20 latent, AEVB, test", "2e7")


# --- faulty files -----------------------------------------------------------------------------------------------------

SOUND: dict[str, Any] = {
    "paper": "p",
    "source": "s",
    "tables": [
        {"table": "T", "caption": "c", "unit": "percent", "direction": "higher", "sample": "n", "tolerance": 1.0,
         "rows": [{"row": "r", "values": {"a": 1, "b": 2.5}, "metrics": {"a": "x/y"}, "when": {"scale": "paper"}}]}
    ],
}  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    path = folder / "p.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def with_table(**changes: Any) -> dict[str, Any]:
    return SOUND | {"tables": [SOUND["tables"][0] | changes]}


def with_row(**changes: Any) -> dict[str, Any]:
    return with_table(rows=[SOUND["tables"][0]["rows"][0] | changes])


def test_a_row_inherits_from_its_table_and_columns_without_metric_carry_no_condition(tmp_path: Path) -> None:
    first, second = read(write(tmp_path, SOUND))
    assert (first.metric, first.when, first.unit, first.source) == ("x/y", {"scale": "paper"}, "percent", "s")
    assert (second.metric, second.when, second.value) == (None, {}, 2.5)


def test_what_a_row_states_replaces_what_its_table_states(tmp_path: Path) -> None:
    first, second = read(
        write(tmp_path, with_row(tolerance={"a": 0.5, "b": None}, spread={"b": 0.1}) | {"source": "elsewhere"})
    )
    assert (first.tolerance, second.tolerance) == (0.5, None)
    assert (first.spread, second.spread) == (None, 0.1)
    assert first.source == "elsewhere"


def test_a_table_may_state_a_tolerance_for_each_column(tmp_path: Path) -> None:
    entries = read(write(tmp_path, with_table(tolerance={"a": 1, "b": 2})))

    assert [entry.tolerance for entry in entries] == [1.0, 2.0]


def test_a_number_in_doubt_is_held_against_nothing(tmp_path: Path) -> None:
    entry = read(write(tmp_path, with_row(doubt="quoted from memory")))[0]

    assert entry.tolerance is None
    assert entry.agrees(entry.value) is None


def test_a_rows_empty_reason_lifts_its_tables(tmp_path: Path) -> None:
    rows = [{"row": name, "values": {"a": 1}} for name in ("r", "s", "t")]
    rows[1]["unreproduced"] = "another"
    rows[2]["unreproduced"] = ""
    content = with_table(rows=rows, unreproduced="private data")

    assert [entry.unreproduced for entry in read(write(tmp_path, content))] == ["private data", "another", ""]


def test_one_name_may_stand_for_the_metrics_of_all_columns(tmp_path: Path) -> None:
    entries = read(write(tmp_path, with_row(metrics="x/{column}")))

    assert [(entry.metric, dict(entry.when)) for entry in entries] == [
        ("x/a", {"scale": "paper"}),
        ("x/b", {"scale": "paper"}),
    ]


AXIS = {"name": "samples", "unit": "count", "key": "train.samples"}


@pytest.mark.parametrize(
    ("axis", "samples", "expected"),
    [(AXIS, 1000, [1.0]), (AXIS, 10000, [2.0]), (AXIS, 5000, []), (AXIS | {"key": ""}, 1000, [])],
)
def test_a_point_applies_to_the_run_that_ends_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axis: dict[str, str], samples: int, expected: list[float]
) -> None:
    row = {"row": "r", "values": {"1e3": 1, "1e4": 2}, "metrics": "test/bound", "when": {"scale": "paper"}}
    entries = read(write(tmp_path, with_table(rows=[row], axis=axis, digitisation=0.1, table="Figure 1")))
    monkeypatch.setattr(published, "all_published", lambda: tuple(entries))

    config = {"scale": "paper", "train": {"samples": samples}}
    assert [entry.value for entry in matching(config)] == expected
    assert [entry.when for entry in entries] == [{"scale": "paper"}] * 2  # a longer run passes both places


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ([], "p.yaml:1: the file: expected a section with the keys paper, source, .*, given a list"),
        (
            with_row(values={7: 1.0}),
            r'p\.yaml:\d+: tables\.0 \(T\)\.rows\.0 \(r\)\.values\.7: names are text: write "7" in quotes',
        ),
        (SOUND | {"tabels": []}, "tabels: no such key. Nearest: tables"),
        (with_table(unit="furlongs"), r"tables\.0 \(T\)\.unit: expected one of percent, .*, given furlongs"),
        (with_table(direction="up"), r"tables\.0 \(T\)\.direction"),
        (with_table(tolerance=-1), r"tables\.0 \(T\)\.tolerance: expected a number of 0 or more or null .*, given -1"),
        (with_row(values={"a": "high"}), r"rows\.0 \(r\)\.values\.a: expected a number, given high"),
        (with_row(metrics={"c": "x/y"}), "T, r: metrics name c, which values lack"),
        (with_row(when={}), "T, r: metrics without `when` would apply to every run"),
        (with_table(rows=SOUND["tables"][0]["rows"] * 2), "T, r, a stands there twice"),
        (with_table(rows=[]), r"tables\.0 \(T\)\.rows: is empty"),
        (with_row(values={}), r"rows\.0 \(r\)\.values: is empty"),
        (with_row(row=""), r"rows\.0\.row: is empty"),
        (with_row(spread={"c": 1}), "T, r: spread name c, which values lack"),
        (with_row(spread={"a": 0}), r"spread\.a: expected a number above 0, given 0"),
        (with_row(tolerance={"a": 1}), "T, r: tolerance lacks b"),
        (with_row(tolerance={"a": 1, "b": 1, "c": 1}), "T, r: tolerance name c, which values lack"),
        (with_table(tolerance={"a": 1, "b": 1, "z": 1}), "T: tolerance names z, a column that no row has"),
        (with_table(axis=AXIS), "T, r: columns of a table with an axis are numbers, not a, b"),
        (with_table(axis=AXIS, rows=[{"row": "r", "values": {"1e4": 1, "1e3": 1}}]), "not in the order of the axis"),
        (with_table(axis=AXIS, rows=[{"row": "r", "values": {"1e3": 1, "1000": 1}}]), "not in the order of the axis"),
        (with_table(axis={"name": "samples"}), r"tables\.0 \(T\)\.axis\.unit: is missing. Expected one of percent"),
        (with_table(digitisation=0.1), "T: `digitisation` is for numbers read off a figure"),
    ],
)
def test_faulty_files_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, content))
    assert re.match(r".*p\.yaml(:\d+)?: ", str(caught.value))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml: cannot be read"):
        read(tmp_path / "none.yaml")


def test_every_fault_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, with_row(spread={"c": 1}, metrics={"d": "x/y"})))
    assert "spread name c" in str(caught.value)
    assert "metrics name d" in str(caught.value)
