"""Options of commands that are not those of a run arrive at what does the work."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from paperbench.catalog import DATASETS, MODELS, PAPERS, TASKS
from paperbench.cli import models, reproducing
from paperbench.cli.app import app
from paperbench.report import published
from paperbench.report.coverage import counts


def call(*words: str) -> Any:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def a_model(monkeypatch: pytest.MonkeyPatch, seen: list[Any]) -> None:
    """A run of a task whose `predict` notes what it is asked."""

    def predict(config: Any, directory: Path, images: Any, folder: Path, **options: Any) -> list[dict[str, Any]]:
        seen.append((config, directory, images, folder, options))
        return [{"image": str(image), "picture": str(image)} for image in images]

    task = SimpleNamespace(name="task")
    monkeypatch.setattr(models, "_directory_of", lambda run: run)
    monkeypatch.setattr(models, "load_file", lambda file: (task, "as trained", {"device": "auto", "a": 1}))
    monkeypatch.setattr(models, "predict_of", lambda task, directory: predict)
    monkeypatch.setattr(models, "takes", lambda function, name: False)
    monkeypatch.setattr(models, "check_options", lambda *_: None)
    monkeypatch.setattr(models, "validate", lambda task, mapping: mapping)


def test_options_of_predict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    a_model(monkeypatch, seen)
    (tmp_path / "a.png").touch()
    run, image, output = str(tmp_path), str(tmp_path / "a.png"), str(tmp_path / "out")
    call("predict", run, image)
    call("predict", run, image, "--score-threshold", "0.25", "--device", "cpu", "--output", output)
    assert seen == [
        ("as trained", tmp_path, [Path(image)], tmp_path / "figures" / "predictions", {}),
        ({"device": "cpu", "a": 1}, tmp_path, [Path(image)], Path(output), {"score_threshold": 0.25}),
    ]


@pytest.mark.parametrize(
    ("what", "catalogue"), [("tasks", TASKS), ("models", MODELS), ("datasets", DATASETS), ("papers", PAPERS)]
)
def test_each_list_is_that_of_its_catalogue(what: str, catalogue: dict[str, Any]) -> None:
    listed = json.loads(call("ls", what, "--json").stdout)
    assert [entry["name"] for entry in listed] == list(catalogue)
    table = call("ls", what).stdout
    assert [name for name in catalogue if name not in table] == []


def test_each_paper_has_its_own_counts() -> None:
    own = counts(published.all_published())
    for entry in json.loads(call("ls", "papers", "--json").stdout):
        if entry["name"] in own:
            found = own[entry["name"]]
            assert (entry["numbers"], entry["rows"], entry["reproduced"]) == (
                found.numbers,
                found.rows,
                found.reproduced,
            )
    assert len({count.numbers for count in own.values()}) > 1


def test_data_are_looked_for_below_the_root_that_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAPERBENCH_DATA", str(tmp_path / "empty"))
    folder = tmp_path / "here" / "coco" / "annotations"
    folder.mkdir(parents=True)
    document = json.loads(call("data", "ls", "--root", str(tmp_path / "here"), "--json").stdout)
    found = {entry["name"]: entry["found"] for entry in document["datasets"]}
    assert found["coco"]
    assert all(str(tmp_path / "here") in path for path in found["coco"])
    assert not found["voc"]


class _CaughtError(Exception):
    pass


def test_options_of_reproduce(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def plan(name: str, overrides: Any, **settings: Any) -> Any:
        seen.update(settings, name=name, overrides=list(overrides))
        raise _CaughtError

    monkeypatch.setattr(reproducing, "plan_reproduction", plan)
    (tmp_path / "experiment").mkdir()
    words = ["reproduce", "vae/figure-2", "train.samples=5", "--scale", "paper", "--seeds", "4", "--launcher", "slurm"]
    result = CliRunner().invoke(app, [*words, "--conf-dir", str(tmp_path)])
    assert isinstance(result.exception, _CaughtError | SystemExit)
    assert seen == {
        "name": "vae/figure-2", "overrides": ["train.samples=5"], "scale": "paper", "seeds": 4, "launcher": "slurm",
        "conf_dir": tmp_path, "rows": (), "columns": (),
    }  # fmt: skip
