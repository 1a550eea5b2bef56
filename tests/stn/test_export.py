"""Exported digit nets give what the run's own net gives, in every format that the catalogue names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from paperbench.catalog import TASKS
from paperbench.cli.app import app
from paperbench.config.validate import load_file
from paperbench.engine.export import FORMATS
from paperbench.stn.export import export_model

RUNS = {
    "st-cnn": ("stn-mnist", "distortion=r", "model.filters=2"),
    "cnn": ("stn-mnist", "model=cnn", "model.side=28", "model.filters=2"),
    "dcn": ("stn-mnist", "model=dcn", "distortion=r", "model.filters=2", "model.width=2"),
    "2st-fcn": ("stn-addition", "model.units=8", "transform=tps"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


def trained(runs: Path, name: str) -> Path:
    folder = runs / name
    if not folder.exists():
        experiment, *overrides = RUNS[name]
        overrides += ["train.samples=8", "train.batch_size=4", "evaluation.pictures=0", "device=cpu"]
        result = CliRunner().invoke(app, ["train", experiment, *overrides, "--smoke", "--run-dir", str(folder)])
        assert result.exit_code == 0, result.output
    return folder


def exported(run: Path, kind: str, output: Path) -> Result:
    return CliRunner().invoke(app, ["export", str(run), "--format", kind, "--output", str(output), "--json"])


def checked(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(runs: Path, kind: str, tmp_path: Path) -> None:
    record = checked(exported(trained(runs, "st-cnn"), kind, tmp_path / "net"))
    assert record["check"]["by_output"]["logits"]["max_abs_difference"] < 1e-4
    assert (record["task"], record["experiment"]) == ("stn-mnist", "stn-mnist")


@pytest.mark.parametrize("name", [name for name in RUNS if name != "st-cnn"])
def test_every_kind_of_net(runs: Path, name: str, tmp_path: Path) -> None:
    record = checked(exported(trained(runs, name), "torchscript", tmp_path / "net"))
    assert record["check"]["by_output"]["logits"]["max_abs_difference"] < 1e-4


def test_the_examples_are_test_inputs_in_two_sizes_of_batch(runs: Path) -> None:
    _, config, _ = load_file(trained(runs, "2st-fcn") / "config.yaml")
    exportable = export_model(config, runs / "2st-fcn")  # type: ignore[arg-type]
    assert [tuple(images.shape) for (images,) in exportable.inputs] == [(4, 2, 42, 42), (3, 2, 42, 42)]
    assert all(float(images.min()) >= 0 and 0.5 < float(images.max()) <= 1 for (images,) in exportable.inputs)
    assert exportable.module(*exportable.inputs[1])[0].shape == (3, 19)


def test_the_catalogue_names_every_format() -> None:
    assert set(TASKS["stn-mnist"].exports) == set(TASKS["stn-addition"].exports) == set(FORMATS)
