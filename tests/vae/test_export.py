"""Both halves of an auto-encoder, exported, give what the run's own model gives, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.config.validate import load_file
from paperbench.engine.export import FORMATS, compare
from paperbench.errors import CheckpointError, ConfigError
from paperbench.vae.export import export_model
from paperbench.vae.task import run
from tests.vae.runs import configured, make_run

VARIANTS = {
    "vae": ("model.latent=3",),
    "gaussian": ("model.likelihood=gaussian", "model.latent=3"),
    "convolutions": ("model=conv-vae", "model.latent=3", "data.max_train_images=40"),
    "autoencoder": ("model=autoencoder", "model.latent=3"),
    "mcem": ("estimator=mcem", "model.latent=2", "evaluation.marginal.images=4"),
}
OUTPUTS = {
    "autoencoder": ["codes", "reconstructions", "decoded"],
    "mcem": ["decoded"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind after a few steps."""
    folders = {}
    for name, overrides in VARIANTS.items():
        pair = configured("train.samples=100", *overrides)
        folders[name] = tmp_path_factory.mktemp("exported") / name
        trained = make_run(folders[name], *pair)
        run(pair[0], trained)
        trained.log.close()
        trained.directory.release()
    return folders


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_exportable_is_the_model(variant: str, trained: dict[str, Path]) -> None:
    _, config, _ = load_file(trained[variant] / "config.yaml")
    exportable = export_model(config, trained[variant])
    assert [output.name for output in exportable.outputs] == OUTPUTS.get(
        variant, ["mean", "log_variance", "reconstructions", "decoded"]
    )
    assert set(compare(exportable, lambda inputs: exportable.module(*inputs)).values()) == {0.0}
    answers = exportable.module(*exportable.inputs[0])
    assert answers[-1].shape == (5, 1, 28, 28)
    assert float(answers[-1].min()) >= 0
    assert float(answers[-1].max()) <= 1
    if variant != "mcem":
        assert answers[0].shape == (4, 3)
        torch.testing.assert_close(answers[-2], exportable.module(exportable.inputs[0][0], answers[0])[-1])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("variant", ["vae", "convolutions"])
def test_every_format(variant: str, kind: str, trained: dict[str, Path], tmp_path: Path) -> None:
    result = call(trained[variant], "--format", kind, "--output", tmp_path / "codec", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["check"]["max_abs_difference"] < 1e-4
    assert record["metadata"] == {"binarisation": "grey", "latent": "3"}
    shapes = [given["shape"] for given in record["inputs"]]
    assert shapes == [["batch", 1, 28, 28], ["draws", 3]]


def test_weights_in_a_file_are_those_of_the_checkpoint_without_the_chains(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file as load_tensors

    file = tmp_path / "weights.safetensors"
    assert call(trained["mcem"], "--format", "safetensors", "--output", file).exit_code == 0
    module = torch.load(trained["mcem"] / "checkpoints" / "last.pt", weights_only=True)["module"]
    expected = {name.removeprefix("model."): value for name, value in module.items() if name.startswith("model.")}
    found = load_tensors(file)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_meaning_of_pixels_is_stated(tmp_path: Path) -> None:
    pair = configured("train.samples=20", "binarisation=static")
    run(pair[0], make_run(tmp_path / "run", *pair))
    exportable = export_model(pair[0], tmp_path / "run")
    assert "every pixel 0 or 1" in exportable.meaning
    assert set(exportable.inputs[0][0].unique().tolist()) == {0.0, 1.0}


def test_runs_that_are_refused(trained: dict[str, Path], tmp_path: Path) -> None:
    config, resolved = configured()
    started = make_run(tmp_path / "started", config, resolved)
    with pytest.raises(ConfigError, match="no checkpoint has been saved there yet"):
        export_model(config, started.directory.path)
    _, other, _ = load_file(trained["vae"] / "config.yaml")
    other.model.hidden = 7
    with pytest.raises(CheckpointError, match="another model"):
        export_model(other, trained["vae"])
