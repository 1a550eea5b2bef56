"""The end of a run: which numbers, which of the paper's, and which commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from paperbench.cli.summary import MOST_ROWS, summarise
from tests.report.made_runs import paper_config

RESULTS: dict[str, Any] = {
    "schema_version": 1,
    "experiment": "faster-rcnn",
    "task": "detect-train",
    "scale": "paper",
    "status": "done",
    "data": "voc: VOC2007 trainval and test",
    "metrics": {
        "coco/AP": 38.04, "coco/AP50": 69.0, "coco/AP/cat": 50.0, "voc07/mAP": 70.23, "voc07/AP/cat": 82.0,
        "proposals/recall50@300": 97.0, "seconds_per_image": 0.05, "train/samples_per_second": 11.0,
    },
    "seconds": 3675.4,
}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "one"
    (folder / "figures").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(paper_config("faster-rcnn", "Table 3", "RPN+VGG shared 300, 07", "mAP"))
    )
    return folder


def test_the_papers_number_stands_beside_ours(run_dir: Path) -> None:
    summary = summarise(RESULTS, str(run_dir))
    first = summary.lines[0]
    assert (first.metric, first.result, first.paper, first.where) == ("voc07/mAP", "70.2 %", "69.9 +-1.2 %", "Table 3")
    assert first.verdict.startswith("within tolerance")
    assert [line.metric for line in summary.lines[1:4]] == ["coco/AP", "coco/AP50", "proposals/recall50@300"]
    assert all(not line.paper and not line.verdict for line in summary.lines[1:])
    assert summary.remarks[0].startswith("paper: Ren, He, Girshick, Sun")


def test_what_the_published_number_says_about_itself_is_repeated(run_dir: Path) -> None:
    summary = summarise(RESULTS | {"metrics": RESULTS["metrics"] | {"seconds/total": 0.2}}, str(run_dir))
    assert "a time on the authors' hardware" in summary.remarks


def test_a_number_outside_the_tolerance_is_said_to_differ(run_dir: Path) -> None:
    metrics = RESULTS["metrics"] | {"voc07/mAP": 60.0}
    assert summarise(RESULTS | {"metrics": metrics}, str(run_dir)).lines[0].verdict.startswith("outside tolerance")


def test_other_data_are_said_to_have_no_published_number(run_dir: Path) -> None:
    (run_dir / "config.yaml").write_text("data: {name: shapes}\n")
    summary = summarise(RESULTS | {"data": "shapes", "scale": "short"}, str(run_dir))
    assert not any(line.paper for line in summary.lines)
    assert summary.remarks == ("no published number applies to these data and settings at scale=short",)


@pytest.mark.parametrize("damage", [None, "a: [", "- 1", b"\xff\xfe\x00"])
def test_a_config_that_cannot_be_read_costs_only_the_comparison(run_dir: Path, damage: str | bytes | None) -> None:
    file = run_dir / "config.yaml"
    if damage is None:
        file.unlink()
    elif isinstance(damage, bytes):
        file.write_bytes(damage)
    else:
        file.write_text(damage)
    summary = summarise(RESULTS, str(run_dir))
    assert len(summary.lines) == 6
    assert summary.remarks[0].startswith("no published number applies")


def test_facts_and_commands_name_the_run(run_dir: Path) -> None:
    summary = summarise(RESULTS, str(run_dir))
    assert dict(summary.facts) == {
        "data": "voc: VOC2007 trainval and test",
        "time": "1:01:15",
        "all numbers": "outputs/one/results.json",
        "figures": "outputs/one/figures",
    }
    assert [command for _, command in summary.commands] == [
        "paperbench predict outputs/one IMAGE.jpg",
        "paperbench eval faster-rcnn checkpoint=outputs/one",
    ]


def test_commands_can_be_pasted_whatever_the_folder_is_called(tmp_path: Path) -> None:
    (tmp_path / "my runs").mkdir()
    summary = summarise(RESULTS, str(tmp_path / "my runs"))
    assert summary.commands[0][1] == "paperbench predict 'my runs' IMAGE.jpg"


def test_an_estimate_offers_its_page(run_dir: Path) -> None:
    summary = summarise(RESULTS | {"task": "rca-estimate", "experiment": "rca"}, str(run_dir))
    assert summary.commands == (("look at it", "paperbench report outputs/one"),)


def test_an_evaluation_offers_no_further_commands(run_dir: Path) -> None:
    assert summarise(RESULTS | {"task": "detect-score", "experiment": "detections"}, str(run_dir)).commands == ()
    assert summarise(RESULTS | {"task": "from-the-future"}, str(run_dir)).commands == ()


def test_a_run_that_is_not_done_can_be_continued(run_dir: Path) -> None:
    summary = summarise(RESULTS | {"status": "stopped"}, str(run_dir))
    assert summary.title == "faster-rcnn: stopped"
    assert [command for _, command in summary.commands] == ["paperbench resume outputs/one"]


def test_metrics_that_nobody_listed_are_shown_and_nulls_are_not(run_dir: Path) -> None:
    metrics = {f"new/{number}": number / 3 for number in range(20)} | {"new/null": None}
    summary = summarise(RESULTS | {"metrics": metrics}, str(run_dir))
    assert len(summary.lines) == MOST_ROWS
    assert summary.lines[1].result == "0.3333"
    assert summarise(RESULTS | {"metrics": None}, str(run_dir)).lines == ()
