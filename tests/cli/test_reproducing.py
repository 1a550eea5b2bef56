"""`paperbench reproduce`: the list, the plan, the table, and how it ends."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.report.layout import load
from paperbench.report.preparing import Prepared, prepare
from paperbench.sweeps import record
from tests.report.made_runs import fail, finish
from tests.user_folder import write

TABLE = "faster-rcnn/table-9"


def reproduce(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["reproduce", *arguments])


def planned(seeds: int | None = None) -> Prepared:
    return prepare(load(TABLE), "smoke", seeds=seeds)


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_says_what_each_table_is_and_costs() -> None:
    result = reproduce()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["name", "smoke", "short", "paper", "what"]
    assert max(map(len, lines)) <= 118
    first = next(k for k, line in enumerate(lines) if line.startswith(f"{TABLE} "))
    folded = [line for line in lines[first + 1 :] if line]
    rows = [lines[first], *itertools.takewhile(lambda line: line.startswith(" "), folded)]
    assert re.search(r"4 runs, 0:32 +4 runs, 8:00 +4 runs  ", rows[0])
    text = " ".join(line[lines[0].index("what") :] for line in rows)
    assert text.startswith("Table 9. Weight lambda of the regression loss")
    numbers = [line.split()[0] for line in lines if line.startswith("faster-rcnn/table-")]
    assert numbers.index("faster-rcnn/table-9") < numbers.index("faster-rcnn/table-11")


def test_the_list_of_a_paper_has_its_tables_only() -> None:
    found = json.loads(reproduce("faster-rcnn", "--json").stdout)
    assert {item["paper"] for item in found} == {"faster-rcnn"}
    assert all(item["caption"] and item["scales"] for item in found)


def test_the_list_says_what_is_done() -> None:
    prepared = planned()
    for member in prepared.sweep.members[:3]:
        finish(member, {"voc07/mAP": 60.0})
    prepared.directory.mkdir(parents=True)
    record.write(prepared.sweep)
    (item,) = [item for item in json.loads(reproduce("--json").stdout) if item["name"] == TABLE]
    assert {at["scale"]: at["done"] for at in item["scales"]} == {"smoke": 3, "short": 0, "paper": 0}
    (line,) = [line for line in reproduce().stdout.splitlines() if line.startswith(f"{TABLE} ")]
    assert "4 runs, 0:32, 3 done" in line
    assert "done" not in next(line for line in reproduce("output.root=other").stdout.splitlines() if TABLE in line)


def test_a_list_takes_no_overrides_but_where_runs_lie() -> None:
    result = reproduce("optim.lr=1")
    assert result.exit_code == 2
    assert "optim.lr=1: belongs to `paperbench reproduce NAME`" in result.stderr


def test_a_faulty_file_of_ones_own_is_named_and_hides_no_other(conf: Path) -> None:
    write(conf / "reproduce/faster-rcnn/mine.yaml", "paper: faster-rcnn\nrow: []\n")
    result = reproduce()
    assert result.exit_code == 2
    assert f"\n{TABLE} " in result.stdout
    assert "conf/reproduce/faster-rcnn/mine.yaml:2: row: no such key. Nearest: rows" in result.stderr


# --- names and mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("faster-rcnn/table9",), 2, "no such reproduction. Nearest: faster-rcnn/table-9"),
        ((TABLE, "--scale", "papr"), 2, "--scale papr: no such scale. Nearest: paper"),
        ((TABLE, "--scale", "smoke", "--launcher", "slurn"), 2, "no such launcher. Nearest: slurm"),
        ((TABLE, "--scale", "smoke", "modl.rpn.sigma=1"), 2, "modl.rpn.sigma: no such key"),
        ((TABLE, "--scale", "smoke", "launcher.jobs=1"), 2, "launcher.jobs: no such key"),
        ((TABLE, "--scale", "paper", "data.root=nowhere"), 4, "no data set 'voc' here"),
    ],
)
def test_mistakes_end_before_anything_is_written(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    result = reproduce(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_runs_and_what_they_will_be_worth(tmp_path: Path) -> None:
    result = reproduce(TABLE, "--scale", "smoke", "--seeds", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("to do") == 8
    assert "8 runs, 2 seeds; 1:04 one after another on one CPU core" in result.stdout
    assert "every number: data.name shapes instead of voc" in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_some_rows_shows_their_runs() -> None:
    result = reproduce(TABLE, "--scale", "smoke", "--dry-run", "--row", "lambda 1", "--row", "lambda 100")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("to do") == 2
    assert "2 runs, 1 seed; 0:16 one after another" in result.stdout
    result = reproduce(TABLE, "--scale", "smoke", "--dry-run", "--row", "lambda 2")
    assert result.exit_code == 2
    assert (
        "--row 'lambda 2': faster-rcnn/table-9 has none of this name that is made of runs. Nearest: " in result.stderr
    )


def test_a_dry_run_knows_what_is_done() -> None:
    finish(planned().sweep.members[0], {"voc07/mAP": 60.0})
    document = json.loads(reproduce(TABLE, "--scale", "smoke", "--dry-run", "--json").stdout)
    assert [run["state"] for run in document["runs"]] == ["done", "to do", "to do", "to do"]
    assert document["runs"][0]["labels"] == {"row": "lambda 0.1", "seed": "0"}
    assert document["cells"][0]["conditions"]["data"] == ["data.name shapes instead of voc"]


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_table_is_completed_row_by_row() -> None:
    """The runs of the selected rows are done, so that nothing is left to start; the others show what they lack."""
    first, second, *_ = planned().sweep.members
    for member in (first, second):
        finish(member, {"voc07/mAP": 60.0})
    result = reproduce(TABLE, "--scale", "smoke", "--row", "lambda 0.1", "--row", "lambda 1", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    cells = [row["cells"]["mAP"] for row in document["rows"] if row["kind"] == "runs"]
    assert [cell["verdict"] for cell in cells] == ["not comparable", "not comparable", "missing", "missing"]
    assert cells[2]["remarks"][-1] == "seed 0 is missing: its run was not started"
    assert len(json.loads((Path(document["directory"]) / "sweep.json").read_text())["runs"]) == 4


def test_what_is_done_is_not_run_again() -> None:
    for index, member in enumerate(planned().sweep.members):
        finish(member, {"voc07/mAP": 60.0 + index})
    result = reproduce(TABLE, "--scale", "smoke")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("lambda 100 ")]
    assert line.split()[:7] == ["lambda", "100", "69.1", "±1.2", "%", "63.00", "1"]
    assert "not comparable: other data, other scale" in line
    assert "this table is not a reproduction of the paper's" in result.stdout
    folder = Path("outputs/reproduce") / TABLE / "smoke"
    assert {"sweep.json", "reproduction.json", "table.md", "table.csv"} <= {file.name for file in folder.iterdir()}


def test_failures_leave_a_table_and_the_sweeps_exit_code() -> None:
    first, *others = planned().sweep.members
    fail(first, "the loss is not finite")
    for member in others:
        finish(member, {"voc07/mAP": 60.0})
    result = reproduce(TABLE, "--scale", "smoke", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["exit_code"] == 1
    assert [row["cells"]["mAP"]["verdict"] for row in document["rows"]][:2] == ["missing", "not comparable"]
    assert "failed: row=lambda 0.1 seed=0: the loss is not finite" in result.stderr
    assert "the log says the loss is not finite" in result.stderr
    assert json.loads((Path(document["directory"]) / "reproduction.json").read_text()).items() <= document.items()


def test_a_curve_is_made_as_far_as_asked_and_goes_on_from_there(conf: Path) -> None:
    layout = {
        "paper": "vae", "table": "Curve", "caption": "none", "experiment": "vae", "metric": "test/bound",
        "columns": {"100": {"samples": 100, "published": None}, "200": {"samples": 200, "published": None}},
        "rows": [{"row": "one", "published": None}], "scales": {"smoke": {}},
        "overrides": ["train.samples=200", "evaluation.at_samples=[100]", "evaluation.importance_samples=0"],
    }  # fmt: skip
    write(conf / "reproduce/vae/curve.yaml", yaml.safe_dump(layout))
    result = reproduce("vae/curve", "--scale", "smoke", "--column", "100", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    cells = document["rows"][0]["cells"]
    assert (cells["100"]["n"], cells["200"]["verdict"]) == (1, "missing")
    run = Path(document["directory"]) / cells["100"]["values"][0]["run"]
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["step"], status["steps"]) == ("stopped", 5, 10)
    whole = json.loads(reproduce("vae/curve", "--scale", "smoke", "--json").stdout)["rows"][0]["cells"]
    assert whole["100"]["mean"] == cells["100"]["mean"]
    assert whole["200"]["n"] == 1
    assert json.loads((run / "status.json").read_text())["state"] == "done"


@pytest.mark.slow
def test_a_table_is_made_from_nothing_and_completed_by_the_same_command() -> None:
    name = "faster-rcnn/table-3"
    arguments = (name, "--scale", "smoke", "evaluation.bootstrap=50", "train.samples=2")
    result = reproduce(*arguments)
    assert result.exit_code == 0, result.output
    (folder,) = (Path("outputs/reproduce") / name).iterdir()
    document = json.loads((folder / "reproduction.json").read_text())
    cell = document["rows"][0]["cells"]["mAP"]
    assert cell["n"] == 1
    assert cell["interval_kind"] == "resampled test images, 95 %"
    run = folder / cell["values"][0]["run"]
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    assert cell["mean"] == metrics["voc07/mAP"]
    assert cell["interval"] == [metrics["voc07/mAP/low"], metrics["voc07/mAP/high"]]
    assert "train.samples 2 instead of 8, as shipped" in cell["deviations"]
    written = (run / "results.json").stat().st_mtime_ns
    assert reproduce(*arguments).exit_code == 0
    assert (run / "results.json").stat().st_mtime_ns == written
