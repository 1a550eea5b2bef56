"""Whole runs: resuming, refusing, evaluating again, predicting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.engine import metriclog
from paperbench.errors import ConfigError, DataError, Stopped
from paperbench.vae.task import plan, run
from tests.vae.runs import DECLARED, StopAfter, configured, losses, make_run, state

MCEM = ("estimator=mcem", "model.latent=2", "evaluation.marginal.images=6")


@pytest.mark.parametrize(
    "overrides",
    [
        ("binarisation=dynamic",),
        ("estimator=wake-sleep", "optim.name=adagrad"),
        MCEM,
        ("model=conv-vae", "data.max_train_images=40"),
    ],
    ids=["aevb", "wake-sleep", "mcem", "convolutions"],
)
def test_a_run_that_is_stopped_continues_bit_for_bit(overrides: tuple[str, ...], tmp_path: Path) -> None:
    pair = configured("train.samples=240", "train.checkpoint_every=5", *overrides)
    whole = make_run(tmp_path / "whole", *pair)
    expected = run(pair[0], whole)
    assert all(name in DECLARED for name in expected)
    part = make_run(tmp_path / "part", *pair, stop=StopAfter(8))
    with pytest.raises(Stopped):
        run(pair[0], part)
    assert 0 < state(part)["step"] < 12
    resumed = make_run(tmp_path / "part", *pair, again=True)
    found = run(pair[0], resumed)
    assert losses(resumed) == losses(whole)
    for name, weights in state(whole)["module"].items():
        assert torch.equal(weights, state(resumed)["module"][name]), name
    rate = "train/samples_per_second"
    assert {**found, rate: 0} == {**expected, rate: 0}


def test_samples_seen_are_the_unit_of_evaluations(tmp_path: Path) -> None:
    pair = configured("train.samples=200", "evaluation.at_samples=[50,120,9000]")
    whole = make_run(tmp_path / "run", *pair)
    run(pair[0], whole)
    steps = [record["step"] for record in metriclog.read(whole.directory.metrics_file) if "test/bound" in record]
    assert steps == [3, 6, 10]  # batches of 20: 60, 120 and 200 samples


@pytest.mark.parametrize("estimator", ["aevb", "wake-sleep"])
def test_the_prior_is_on_the_generative_model_alone(estimator: str, tmp_path: Path) -> None:
    settings = (
        "optim.name=sgd",
        "optim.lr=0.001",
        "model.init_std=0.1",  # biases that are not 0 decay as well
        f"estimator={estimator}",
        "train.samples=20",
        "data.max_train_images=20",
    )
    runs = {}
    for prior in ("true", "false"):
        pair = configured(*settings, f"prior={prior}")
        found = make_run(tmp_path / prior, *pair)
        run(pair[0], found)
        runs[prior] = state(found)["module"]
    for name, weights in runs["true"].items():
        moved = not torch.equal(weights, runs["false"][name])
        assert moved == (not name.startswith("encoder.")), name


REFUSED = {
    "estimator=wake-sleep bound.form=sampled": "bound.form=sampled: estimator=wake-sleep maximises no bound",
    "estimator=mcem": "for at most 4 latent dimensions; model.latent is 20, take model.latent=3",
    "model.latent=3 estimator=mcem evaluation.marginal.images=0": "estimator=mcem has no recognition model",
    "estimator=mcem model.latent=2 evaluation.marginal.images=5 nproc=2": "nproc=2: Monte Carlo EM",
    "prior=true": "prior=true: is a weight decay within the gradient",
    "model.beta=2 bound.form=importance": "model.beta=2: weighs the KL term",
    "model.likelihood=gaussian binarisation=static": "binarisation=static: Gaussian pixels are grey",
    "model.min_log_variance=-4": "Bernoulli pixels have no variance",
    "evaluation.marginal.images=10": "at most 4 latent dimensions; model.latent is 20",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_contradictions_are_refused(overrides: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(configured(*overrides.split())[0])
    assert REFUSED[overrides] in str(refused.value)
    assert overrides.split()[-1].partition("=")[0] in str(refused.value) or "mcem" in str(refused.value)


def test_all_contradictions_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        plan(configured("estimator=wake-sleep", "bound.form=sampled", "prior=true", "model.min_log_variance=-2")[0])
    assert len(refused.value.mistakes) == 3


def test_a_plain_autoencoder_has_no_likelihood(tmp_path: Path) -> None:
    overrides = ("estimator=wake-sleep", "evaluation.marginal.images=5", "model.latent=2")
    with pytest.raises(ConfigError) as refused:
        plan(configured(*overrides, experiment="autoencoder")[0])
    assert len(refused.value.mistakes) == 2
    pair = configured("train.samples=60", experiment="autoencoder")
    metrics = run(pair[0], make_run(tmp_path / "run", *pair))
    assert 0 < metrics["test/squared_error"] < 784
    assert not any("bound" in name or "nll" in name for name in metrics)
    assert all(name in DECLARED for name in metrics)


def test_missing_data_are_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"frey/frey_rawface\.mat was looked for"):
        plan(configured("data=frey", f"data.root={tmp_path}")[0])


@pytest.mark.slow
def test_train_eval_and_predict_from_the_command_line(tmp_path: Path) -> None:
    def paperbench(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        return result.exit_code, result.stdout

    trained = str(tmp_path / "trained")
    code, text = paperbench("train", "vae", "binarisation=static", "model.latent=2", "--smoke", "--run-dir", trained)
    assert code == 0, text
    first = json.loads(text)
    assert "pixels binarised once (static)" in first["data"]
    assert first["metrics"]["test/nll"] < -first["metrics"]["test/bound"]
    assert all(name in DECLARED for name in first["metrics"])
    drawn = {path.name for path in (tmp_path / "trained" / "figures").iterdir()}
    assert {"samples.png", "manifold.png", "reconstructions.png", "interpolations.png", "losses.png"} <= drawn

    code, text = paperbench("eval", "vae", f"checkpoint={trained}", "--run-dir", str(tmp_path / "again"))
    assert code == 0, text
    assert json.loads(text)["metrics"]["test/bound"] == pytest.approx(first["metrics"]["test/bound"], rel=1e-9)

    code, text = paperbench(
        "eval", "vae", f"checkpoint={trained}", "binarisation=grey", "--run-dir", str(tmp_path / "no")
    )
    assert code == 2
    assert "trained with binarisation=static" in json.loads(text)["error"]
    code, text = paperbench("eval", "vae", f"checkpoint={trained}", "model.hidden=7", "--run-dir", str(tmp_path / "no"))
    assert code == 2
    assert "model.hidden=7: the run was trained with model.hidden=32" in json.loads(text)["error"]
    assert not (tmp_path / "no").exists()

    Image.fromarray(np.full((40, 30, 3), 200, np.uint8)).save(tmp_path / "picture.jpg")
    code, text = paperbench("predict", trained, str(tmp_path / "picture.jpg"))
    assert code == 0, text
    (answer,) = json.loads(text)
    assert len(answer["latent"]) == 2
    with Image.open(answer["picture"]) as picture:
        assert picture.size == (2 * 2 * 28, 2 * 28)
    (tmp_path / "no.jpg").write_text("no picture")
    code, text = paperbench("predict", trained, str(tmp_path / "no.jpg"))
    assert code == 4
    assert "no.jpg: cannot be read as a picture" in json.loads(text)["error"]
