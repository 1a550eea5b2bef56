"""The published tables: sound as data, and held against exactly the runs they belong to."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperbench.catalog import PAPERS
from paperbench.config.paths import shipped_conf
from paperbench.errors import DataError
from paperbench.report.published import all_published, matching, read

FILES = sorted((shipped_conf() / "paper").glob("*.yaml"))

VGG_07: dict[str, Any] = {
    "scale": "paper",
    "data": {
        "name": "voc", "year": "2007", "train_split": "trainval", "test_split": "test", "classes": [],
        "max_train_images": 0, "max_test_images": 0, "short_side": 600,
    },
    "model": {
        "name": "faster-rcnn", "backbone": "vgg16",
        "anchors": {"sizes": [128.0, 256.0, 512.0], "ratios": [0.5, 1.0, 2.0]},
        "rpn": {"loss_weight": 10.0, "normalisation": "paper", "post_nms_test": 300},
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


# --- the files --------------------------------------------------------------------------------------------------------


def test_there_is_a_file_for_every_paper_and_a_paper_for_every_file() -> None:
    assert {path.stem for path in FILES} == set(PAPERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_number_is_complete(path: Path) -> None:
    entries = read(path)
    assert entries
    for entry in entries:
        assert entry.paper == path.stem
        assert entry.table
        assert entry.caption
        assert entry.row
        assert entry.column
        assert entry.sample
        assert entry.source
        assert type(entry.value) is float
        assert entry.tolerance is None or entry.tolerance > 0
        assert bool(entry.metric) == bool(entry.when)
        if entry.unit == "percent":
            assert 0 < entry.value < 100
        if entry.metric:
            assert entry.tolerance is not None


def test_means_and_classes_of_table_6_agree() -> None:
    # Table 3 prints the means of the rows of table 6.
    means = {"SS 2000, 07": 66.9, "SS 2000, 07+12": 70.0, "RPN unshared 300, 07": 68.5, "RPN shared 300, 07": 69.9,
             "RPN shared 300, 07+12": 73.2, "RPN shared 300, COCO+07+12": 78.8}  # fmt: skip
    table = [entry for entry in all_published() if entry.table == "Table 6"]
    assert {entry.row for entry in table} == set(means)
    for row, mean in means.items():
        of_row = [entry.value for entry in table if entry.row == row]
        assert len(of_row) == 20
        assert sum(of_row) / 20 == pytest.approx(mean, abs=0.1)


def test_the_five_runs_have_the_spread_that_the_tolerance_rests_on() -> None:
    runs = [entry.value for entry in all_published() if entry.table == "repository, five runs"]
    mean = sum(runs) / 5
    assert mean == pytest.approx(59.88)
    assert (sum((value - mean) ** 2 for value in runs) / 4) ** 0.5 == pytest.approx(0.39, abs=0.005)


def test_times_of_table_5_add_up() -> None:
    table = [entry for entry in all_published() if entry.table == "Table 5" and entry.unit == "ms"]
    for row in {entry.row for entry in table}:
        parts = {entry.column: entry.value for entry in table if entry.row == row}
        assert parts["conv"] + parts["proposal"] + parts["region-wise"] == parts["total"]


def test_conditions_name_keys_that_the_schema_has() -> None:
    from dataclasses import asdict

    from paperbench.detection.config import CocoData, DetectTrain, VocData

    known = {"voc": asdict(DetectTrain(data=VocData())), "coco": asdict(DetectTrain(data=CocoData()))}
    for entry in all_published():
        if entry.paper == "faster-rcnn" and entry.metric:
            for key in entry.when:
                section = known[entry.when["data.name"]]
                for name in key.split("."):
                    assert name in section, f"{entry.table}, {entry.row}: {key}"
                    section = section[name]


# --- what applies to a run --------------------------------------------------------------------------------------------


def test_the_run_of_the_paper_is_held_against_table_3_and_table_6() -> None:
    found = matching(VGG_07)
    assert len(found) == 21
    assert (found[0].metric, found[0].value, found[0].table) == ("voc07/mAP", 69.9, "Table 3")
    assert values(VGG_07)["voc07/AP/tvmonitor"] == 67.6


def test_other_settings_are_held_against_their_own_rows() -> None:
    assert values(changed(model__backbone="zf")) == {"voc07/mAP": 59.9}
    assert values(changed(model__rpn__loss_weight=0.1)) == {"voc07/mAP": 67.2}
    assert values(changed(model__anchors={"sizes": [256], "ratios": [1]})) == {"voc07/mAP": 66.7}
    assert values(changed(model__anchors={"sizes": (128.0, 256.0, 512.0), "ratios": (1.0,)})) == {"voc07/mAP": 69.8}


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": "short"},
        {"data__year": "2012"},
        {"data__year": 2007},
        {"data__max_test_images": 10},
        {"data__classes": ["cat"]},
        {"model__backbone": "small"},
        {"model__anchors__sizes": [128, 256]},
        {"model__rpn__normalisation": "sampled"},
        {"model__rpn__post_nms_test": False},
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
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def with_table(**changes: Any) -> dict[str, Any]:
    return SOUND | {"tables": [SOUND["tables"][0] | changes]}


def with_row(**changes: Any) -> dict[str, Any]:
    return with_table(rows=[SOUND["tables"][0]["rows"][0] | changes])


def test_a_row_inherits_from_its_table_and_columns_without_metric_carry_no_condition(tmp_path: Path) -> None:
    first, second = read(write(tmp_path, SOUND))
    assert (first.metric, first.when, first.unit, first.source) == ("x/y", {"scale": "paper"}, "percent", "s")
    assert (second.metric, second.when, second.value) == (None, {}, 2.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ([], "p.yaml"),
        (SOUND | {"tabels": []}, "tabels: Unexpected keyword argument"),
        (with_table(unit="furlongs"), r"tables\.0\.unit: Input should be 'percent'"),
        (with_table(direction="up"), r"tables\.0\.direction"),
        (with_table(tolerance=-1), r"tables\.0\.tolerance"),
        (with_row(values={"a": "high"}), r"rows\.0\.values\.a: Input should be a valid number"),
        (with_row(metrics={"c": "x/y"}), "T, r: metrics name c, which values lack"),
        (with_row(when={}), "T, r: metrics without `when` would apply to every run"),
        (with_table(rows=SOUND["tables"][0]["rows"] * 2), "T, r, a stands there twice"),
    ],
)
def test_faulty_files_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, content))
    assert re.match(r".*p\.yaml: ", str(caught.value))
