"""`paperbench compare`: only what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from tests.cli.recorded import record, record_sweep

METRICS = {"coco/AP50": 80.0, "test/error": 2.0, "test/errors": 20}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def document(*arguments: str | Path) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_only_what_differs_with_differences_to_the_first() -> None:
    record(Path("runs/a"), METRICS)
    record(Path("runs/b"), {**METRICS, "coco/AP50": 82.5}, optim={"name": "sgd", "lr": 0.01}, seconds=75)

    report = document("runs/a", "runs/b")
    first, second = report["runs"]
    assert first["config"] == {"optim.lr": 0.1}
    assert second["config"] == {"optim.lr": 0.01}
    assert second["metrics"] == {"coco/AP50": 82.5, "seconds": 75}
    assert second["deltas"] == {"coco/AP50": 2.5, "seconds": 65}
    assert first["deltas"] == first["environment"] == second["environment"] == {}
    assert report["directions"] == {"coco/AP50": "higher", "seconds": "lower"}
    assert (report["reference"], report["same_metrics"], report["remarks"]) == ("a", 2, [])

    lines = [" ".join(text.split()) for text in call("runs/a", "runs/b").stdout.splitlines()]
    assert "optim.lr 0.1 0.01" in lines
    assert "coco/AP50 higher 80 82.5 (+2.5)" in lines
    assert "seconds lower 0:10 1:15 (+1:05)" in lines
    assert lines[-1] == "in parentheses: the difference to a; 2 metrics are the same"
    assert not any("test/error" in text or "threads" in text or "output.root" in text for text in lines)


def test_headlines_come_first() -> None:
    record(Path("runs/a"), {"train/loss": 1.0, "coco/AP50": 80.0})
    record(Path("runs/b"), {"train/loss": 2.0, "coco/AP50": 82.5})

    text = call("runs/a", "runs/b").stdout
    assert text.index("coco/AP50") < text.index("train/loss")


def test_a_key_that_only_one_has() -> None:
    record(Path("runs/a"), METRICS, model={"width": 3})
    record(Path("runs/b"), {**METRICS, "coco/AP": 50.0})

    first, second = document("runs/a", "runs/b")["runs"]
    assert (first["config"], second["config"]) == ({"model.width": 3}, {})
    assert (first["metrics"], second["metrics"], second["deltas"]) == ({}, {"coco/AP": 50.0}, {})
    assert "model.width    3  -" in call("runs/a", "runs/b").stdout


def test_equal_runs_say_so() -> None:
    record(Path("runs/a"), METRICS)
    record(Path("other/a"), METRICS)

    assert call("runs/a", "other/a").stdout.strip() == "nothing differs; 4 metrics are the same"
    assert [run["name"] for run in document("runs/a", "other/a")["runs"]] == ["runs/a", "other/a"]


def test_the_environment_that_matters() -> None:
    record(Path("runs/a"), METRICS)
    record(
        Path("runs/b"),
        METRICS,
        environment={
            "threads": 4,
            "host": "elsewhere",
            "packages": {"torch": "2.11.0", "numpy": "2.0.0"},
            "git": {"commit": "0123456789abcdef", "diff": "+ a line"},
            "resumed": [{"device": "cuda:0", "threads": 4}],
        },
    )

    first, second = (run["environment"] for run in document("runs/a", "runs/b")["runs"])
    assert first == {"device": "cpu", "threads": "2", "torch": "2.15.0", "source": "0123456789ab"}
    assert second["device"] == "cpu then cuda:0"
    assert second["threads"] == "4"
    assert second["source"].startswith("0123456789ab with changes ")


def test_unfinished_runs_are_shown_as_such() -> None:
    record(Path("runs/a"), METRICS)
    record(Path("runs/b"), state="stopped", seed=1)
    record(Path("runs/c"), {**METRICS, "coco/AP50": 81.0}, seed=2)

    report = document("runs/a", "runs/b", "runs/c")
    assert [run["state"] for run in report["runs"]] == ["done", "stopped", "done"]
    assert report["remarks"] == ["b is stopped, step 4 of 8: it has no results to compare"]
    assert report["runs"][1]["metrics"] == {}
    assert "precision" not in report["runs"][0]["environment"]
    text = call("runs/a", "runs/b", "runs/c").stdout
    assert "note: b is stopped, step 4 of 8" in text
    assert " ".join(next(t for t in text.splitlines() if t.startswith("coco/AP50")).split()) == (
        "coco/AP50 higher 80 - 81 (+1)"
    )


def test_a_run_whose_process_is_gone_is_interrupted() -> None:
    record(Path("runs/a"), METRICS)
    record(Path("runs/b"), state="running")

    assert document("runs/a", "runs/b")["runs"][1]["state"] == "interrupted"


def test_other_data_and_scales_are_pointed_out() -> None:
    record(Path("runs/a"), METRICS)
    record(Path("runs/b"), METRICS, data="other points", scale="paper")

    report = document("runs/a", "runs/b")
    assert [text.split(":")[0] for text in report["remarks"]] == ["made on different data", "made at different scales"]
    lines = call("runs/a", "runs/b").stdout.splitlines()
    assert [" ".join(text.split()) for text in lines][lines.index("run  data") :][:3] == [
        "run data",
        "a made-up points",
        "b other points",
    ]


def test_different_tasks_are_compared_on_what_they_share() -> None:
    record(Path("runs/a"), METRICS, task="toy", only_here=1)
    record(Path("runs/b"), {"coco/AP50": 70.0, "voc/mAP": 60.0}, task="toy-eval", checkpoint="runs/a")

    report = document("runs/a", "runs/b")
    assert report["runs"][1]["config"] == {"task": "toy-eval"}
    assert report["runs"][1]["deltas"] == {"coco/AP50": -10.0}
    assert report["remarks"][0].startswith("runs of different tasks (toy, toy-eval)")


# --- seeds ------------------------------------------------------------------------------------------------------------


def record_methods(errors: dict[str, dict[int, float]]) -> None:
    for rate, by_seed in errors.items():
        for seed, error in by_seed.items():
            record(
                Path(f"runs/{rate}-{seed}"), {"test/error": error}, seed=seed, optim={"name": "sgd", "lr": float(rate)}
            )


def test_runs_that_differ_in_their_seed_are_one_method() -> None:
    record_methods({"0.1": {0: 5.0, 1: 9.0, 2: 1.0}, "0.2": {0: 4.5, 1: 8.0, 3: 0.0}})

    first, second = document("runs")["over_seeds"]
    assert (first["label"], first["seeds"]) == ("optim.lr=0.1", [0, 1, 2])
    assert first["metrics"]["test/error"] == {"n": 3, "mean": 5.0, "interval": [1.0, 9.0], "interval_kind": "range"}
    assert first["paired_differences"] == {}
    assert second["paired_differences"]["test/error"]["seeds"] == [0, 1]
    assert second["paired_differences"]["test/error"]["mean"] == -0.75
    text = call("runs").stdout
    assert "optim.lr=0.1 (n=3)" in text
    assert "5 [1, 9]" in text
    assert "-0.75 [-1, -0.5]" in text
    assert "the interval is: range" in text


def test_a_seed_that_was_run_twice_counts_once() -> None:
    record_methods({"0.1": {0: 5.0, 1: 7.0}})
    record(Path("runs/again"), {"test/error": 100.0}, seed=0)

    (method,) = document("runs")["over_seeds"]
    assert (method["label"], method["runs"], method["metrics"]["test/error"]["mean"]) == (
        "all",
        ["0.1-0", "0.1-1"],
        6.0,
    )


def test_single_runs_are_no_methods() -> None:
    record_methods({"0.1": {0: 5.0}, "0.2": {1: 4.0}})

    assert document("runs")["over_seeds"] == []
    assert "over seeds" not in call("runs").stdout


# --- which runs -------------------------------------------------------------------------------------------------------


def test_a_sweep_stands_for_its_runs_in_its_order() -> None:
    late = record(Path("out/toy/zzz"), METRICS, seed=1)
    early = record(Path("out/toy/aaa"), {**METRICS, "coco/AP50": 70.0}, seed=2)
    sweep = record_sweep(Path("out/toy/sweeps/s"), [late, early, Path("out/toy/never")])

    report = document(sweep)
    assert [run["name"] for run in report["runs"]] == ["zzz", "aaa"]
    assert report["remarks"] == ["out/toy/sweeps/s: 1 of its 3 runs not started"]


def test_a_folder_of_runs_stands_for_them_and_each_counts_once() -> None:
    record(Path("runs/a"), METRICS)
    record(Path("runs/b"), METRICS, seed=1)

    assert [run["name"] for run in document("runs", "runs/b", "runs/../runs/a")["runs"]] == ["a", "b"]


def test_many_runs_are_listed_one_in_a_row() -> None:
    for seed in range(8):
        record(Path(f"runs/r{seed}"), {**METRICS, "coco/AP50": 80.0 + seed, "coco/AP50/cat": seed}, seed=seed)

    lines = call("runs").stdout.splitlines()
    assert lines[0].split() == ["run", "state", "seed", "coco/AP50"]
    assert lines[8].split() == ["r7", "done", "7", "87", "(+7)"]
    assert "1 more metrics differ; --json has them all" in lines


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["runs/a"], 2, "needs at least two runs, found runs/a"),
        (["runs/a", "runs/a"], 2, "needs at least two runs"),
        (["runs/a", "nowhere", "empty"], 2, "nowhere: no run, sweep or folder of runs"),
        (["runs/a", "sweep"], 4, "sweep/sweep.json: damaged, has no schema_version"),
        (["runs/a", "spoilt"], 4, "spoilt/config.yaml: damaged"),
    ],
)
def test_mistakes_are_explained(given: list[str], code: int, said: str) -> None:
    record(Path("runs/a"), METRICS)
    Path("empty").mkdir()
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text("{}", encoding="utf-8")
    Path("spoilt").mkdir()
    Path("spoilt/config.yaml").write_text("a: [", encoding="utf-8")

    result = call(*given)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""


def test_numbers_that_mean_different_things_are_not_compared() -> None:
    for name, binarisation in (("a", "grey"), ("b", "static"), ("c", "grey")):
        record(Path("runs") / name, {"test/bound": -100.0}, task="vae-train", binarisation=binarisation)

    refused = call("runs/a", "runs/b")
    assert refused.exit_code == 2
    assert "binarisation=grey (a), binarisation=static (b): their numbers mean different things" in refused.stderr
    assert call("runs/a", "runs/c").exit_code == 0
