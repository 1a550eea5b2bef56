"""`paperbench runs`: which runs, in which order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.records.metrics import all_metrics
from tests.cli.recorded import record


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "outputs"
    record(root / "toy/low", {"coco/AP50": 60.0, "test/error": 3.0}, seconds=30, updated="2024-05-03T10:00:00+00:00")
    record(
        root / "toy/high",
        {"coco/AP50": 90.0, "test/error": 1.0},
        seconds=90,
        updated="2024-05-02T10:00:00+00:00",
        seed=2,
        optim={"name": "adamw", "lr": 0.001},
    )
    record(
        root / "toy/stopped", state="stopped", updated="2024-05-01T10:00:00+00:00", model={"name": "wide", "width": 9}
    )
    record(
        root / "other/error", {"test/error": 7.5}, seconds=60, updated="2024-04-01T10:00:00+00:00", experiment="other"
    )


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["runs", *arguments])


def document(*arguments: str) -> list[dict[str, Any]]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def names(*arguments: str) -> list[str]:
    return [Path(run["directory"]).name for run in document(*arguments)]


def test_without_a_wish_the_newest_is_first() -> None:
    assert names() == ["low", "high", "stopped", "error"]
    assert call().stderr == ""


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "order", "said"),
    [
        ("updated", ["low", "high", "stopped", "error"], "newest first"),
        ("seconds", ["stopped", "low", "error", "high"], "lowest first"),
        ("coco/AP50", ["high", "low", "stopped", "error"], "highest first"),
        ("test/error", ["high", "low", "error", "stopped"], "lowest first"),
        ("optim.lr", ["high", "low", "stopped", "error"], "lowest first"),
        ("optim.name", ["high", "low", "stopped", "error"], "from a to z"),
        ("metric", ["high", "low", "error", "stopped"], "coco/AP50 highest first, test/error lowest first"),
        ("model", ["stopped", "low", "high", "error"], "from a to z"),
    ],
)
def test_sorted_by_anything_the_best_first_and_those_without_last(key: str, order: list[str], said: str) -> None:
    assert names("--sort", key) == order
    assert call("--sort", key).stderr.endswith(f", {said}\n")


@pytest.mark.parametrize(
    ("metric", "best", "worst"),
    [
        ("svd/seconds/total", 0.1, 0.9),
        ("pyramid/voc07/mAP", 80.0, 70.0),
        ("svd/voc07/mAP", 80.0, 70.0),
        ("segment/forest/dsc", 0.9, 0.1),
        ("rca/failure_auroc", 0.9, 0.6),
    ],
)
def test_metrics_are_sorted_in_their_declared_direction(metric: str, best: float, worst: float) -> None:
    record(Path("speed/worst"), {metric: worst})
    record(Path("speed/best"), {metric: best}, updated="2023-01-01T10:00:00+00:00")

    assert names("speed", "--sort", metric) == ["best", "worst"]
    if all_metrics()[metric].headline:
        assert names("speed", "--sort", "metric") == ["best", "worst"]


def test_reverse_turns_the_order_but_not_the_absent_ones() -> None:
    assert names("--sort", "coco/AP50", "--reverse") == ["low", "high", "stopped", "error"]
    assert names("--sort", "metric", "--reverse") == ["low", "high", "error", "stopped"]
    assert "lowest first" in call("--sort", "coco/AP50", "--reverse").stderr
    assert "oldest first" in call("--sort", "updated", "--reverse").stderr


def test_equal_runs_stay_newest_first_in_both_directions() -> None:
    assert names("--sort", "optim.lr", "--reverse") == ["low", "stopped", "error", "high"]


def test_limit() -> None:
    assert names("--sort", "seconds", "--limit", "2") == ["stopped", "low"]
    assert "2 of 4 runs" in call("--limit", "2").stderr
    assert call("--limit", "0").exit_code == 2


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["state=done"], {"low", "high", "error"}),
        (["state!=done"], {"stopped"}),
        (["coco/AP50>=90"], {"high"}),
        (["coco/AP50 > 60"], {"high"}),
        (["coco/AP50<=90", "test/error>1"], {"low"}),
        (["test/error<3"], {"high"}),
        (["metric<10"], {"error"}),
        (["optim.lr=1e-3"], {"high"}),
        (["optim.lr==0.1"], {"low", "stopped", "error"}),
        (["seed!=0"], {"high"}),
        (["experiment=o*"], {"error"}),
        (["experiment=o"], set()),
        (["data=points"], {"low", "high", "stopped", "error"}),
        (["model=wide", "model.width=9.0"], {"stopped"}),
        (["model!=wide"], set()),
        (["data.classes=[a,b]"], {"low", "high", "stopped", "error"}),
        (["updated>=2024-05-02"], {"low", "high"}),
        (["directory=*/toy/*"], {"low", "high", "stopped"}),
    ],
)
def test_filters_hold_together(filters: list[str], expected: set[str]) -> None:
    assert set(names(*(word for text in filters for word in ("--filter", text)))) == expected


def test_what_was_asked_for_is_shown() -> None:
    table = call("--filter", "optim.lr<1", "--sort", "coco/AP50").stdout.splitlines()

    assert table[0].split() == [
        "experiment",
        "scale",
        "state",
        "step",
        "result",
        "coco/AP50",
        "optim.lr",
        "age",
        "directory",
    ]
    assert table[1].split()[6:8] == ["90", "0.001"]
    assert document("--filter", "seed=2")[0]["values"] == {"seed": 2}
    assert document("--filter", "seed=2")[0]["metrics"] == {"coco/AP50": 90.0, "test/error": 1.0}


def test_time_taken_is_shown_as_such() -> None:
    assert "1:30" in call("--sort", "seconds", "--reverse").stdout.splitlines()[1].split()


def test_none_that_fits_is_no_error() -> None:
    result = call("--filter", "seed=9")

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "0 of 4 runs\n"
    assert document("--filter", "seed=9") == []


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--filter", "optim.lrr=1"],
            "--filter optim.lrr=1: no run below outputs has such a key or metric. Nearest: optim.lr",
        ),
        (["--sort", "coco/AP5"], "--sort coco/AP5: no run below outputs has such a key or metric. Nearest: coco/AP50"),
        (["--sort", "zzzz"], "Facts: directory, experiment, task, scale, seed"),
        (
            ["--filter", "state=dnoe"],
            "no run can be in that state. States: waiting, running, done, stopped, failed, interrupted",
        ),
        (["--filter", "seed"], "give KEY=VALUE"),
        (["--filter", "=3"], "give KEY=VALUE"),
        (["--filter", "seed=two"], "seed is a number, two is none"),
        (["--filter", "seed>"], "seed is a number, nothing is none"),
        (["--reverse"], "--sort KEY"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], said: str) -> None:
    result = call(*arguments)

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_all_mistakes_at_once() -> None:
    result = CliRunner().invoke(
        app, ["runs", "--filter", "sede=1", "--filter", "optim.lr=x", "--sort", "metrik", "--json"]
    )

    assert result.exit_code == 2
    assert len(json.loads(result.stdout)["mistakes"]) == 3


def test_a_folder_without_runs_knows_no_keys() -> None:
    assert call("elsewhere", "--sort", "anything").stdout == "no runs below elsewhere\n"


def test_a_key_of_an_earlier_version_has_a_new_name() -> None:
    record(Path("outputs/vae/0"), {"test/bound": -100.0}, task="vae-train", preset="vae")
    result = call("--filter", "recipe=vae")

    assert result.exit_code == 2
    assert (
        "--filter recipe=vae: no run below outputs has such a key or metric; it is called preset now" in result.output
    )
    assert names("--filter", "preset=vae") == ["0"]
