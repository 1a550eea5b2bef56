"""The student of a run, exported, gives the logits that the run's own code gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.config.validate import load_file
from paperbench.distill.batches import Images
from paperbench.distill.evaluation import logits_of
from paperbench.distill.export import export_model, load_student
from paperbench.engine.export import FORMATS
from paperbench.errors import CheckpointError
from tests.distill.runs import CrashError, CrashingReporter, resolved, train

NETS = {
    "constrained": ("model.max_norm=0.5", "model.dropout=0.5", "optim.lr=0.1"),
    "convolutions": ("model=convnet", "model.layers=2", "model.width=3"),
}


@pytest.fixture(scope="module", params=NETS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    train(resolved(folder, "baseline.train=false", *NETS[request.param]), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(run: Path, kind: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["export", str(run), "--format", kind, "--output", str(tmp_path / "student"), "--json"]
    )
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["check"]["inputs"] == 3
    assert record["check"]["max_abs_difference"] < 1e-3
    assert record["step"] == 8
    assert record["inputs"] == [{"name": "images", "type": "uint8", "shape": ["batch", 1, 28, 28]}]
    assert json.loads(record["metadata"]["classes"]) == [str(digit) for digit in range(10)]


def test_the_exported_module_is_the_student_that_was_scored(run: Path) -> None:
    _, config, _ = load_file(run / "config.yaml")
    exportable = export_model(config, run)
    net, _ = load_student(config, run)
    (pixels,) = exportable.inputs[0]
    images = Images(pixels, torch.zeros(len(pixels), dtype=torch.int64), tuple("0123456789"), "four")

    (logits,) = exportable.module(pixels)
    assert torch.equal(logits, logits_of(net, images, batch_size=4))
    assert float(logits.std()) > 0


def test_a_run_that_has_not_reached_its_student_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        train(resolved(tmp_path), tmp_path / "run", CrashingReporter("teacher", 4))
    result = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--format", "torchscript"])
    assert result.exit_code == 2
    assert "has no distilled student yet; `paperbench resume" in result.stderr
    assert not (tmp_path / "run" / "export").exists()


def test_weights_of_another_configuration(run: Path) -> None:
    _, config, _ = load_file(run / "config.yaml")
    config.model.width += 1
    with pytest.raises(CheckpointError, match="no student of this run's configuration"):
        export_model(config, run)
