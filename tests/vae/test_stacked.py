"""Stacked runs against the same runs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.engine.run import Run
from paperbench.errors import PaperbenchError, Stopped, TrainingError
from paperbench.vae import objectives
from paperbench.vae.config import VaeTrain
from paperbench.vae.task import run as run_alone
from paperbench.vae.task import run_stacked, stack_key
from tests.vae.runs import StopAfter, configured, losses, make_run, state

FIFTY = ("train.samples=1000", "train.batch_size=20", "train.checkpoint_every=20")


def _runs(folder: Path, grid: list[tuple[str, ...]], *common: str) -> tuple[list[VaeTrain], list[Run]]:
    pairs = [configured(*common, *overrides) for overrides in grid]
    runs = [make_run(folder / str(number), *pair) for number, pair in enumerate(pairs)]
    return [config for config, _ in pairs], runs


GRIDS = {
    "latent sizes": [("model.latent=3",), ("model.latent=5",), ("model.latent=20",)],
    "learning rates": [("optim.lr=1e-3",), ("optim.lr=3e-3",)],
    "seeds": [("seed=0",), ("seed=1",)],
    "hidden sizes": [("model.hidden=16",), ("model.hidden=32",)],
    "all at once": [("model.latent=2", "seed=4", "optim.lr=2e-3"), ("model.latent=7", "model.hidden=20")],
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_losses_are_those_of_separate_runs(grid: list[tuple[str, ...]], tmp_path: Path) -> None:
    configs, stacked = _runs(tmp_path / "stacked", grid, *FIFTY)
    assert len({stack_key(config) for config in configs}) == 1
    together = run_stacked(configs, stacked)
    _, alone = _runs(tmp_path / "alone", grid, *FIFTY)
    for config, run, other, result in zip(configs, alone, stacked, together, strict=True):
        expected = run_alone(config, run)
        assert isinstance(result, dict)
        assert result.keys() == expected.keys()
        assert result["test/bound"] == pytest.approx(expected["test/bound"], rel=1e-5)
        first, second = losses(run), losses(other)
        assert len(first) == len(second) == 50
        for step, (a, b) in enumerate(zip(first, second, strict=True)):
            assert b == pytest.approx(a, rel=1e-5), f"step {step}"


@pytest.mark.parametrize(
    "common",
    [
        ("optim.name=adagrad", "optim.lr=0.02", "prior=true", "train.clip_norm=50"),
        ("optim.name=sgd", "optim.lr=1e-4", "bound.form=sampled"),
        ("estimator=wake-sleep",),
        ("bound.form=importance", "bound.samples=3", "binarisation=dynamic"),
        ("model.likelihood=gaussian",),
        ("model=autoencoder",),
    ],
    ids=["adagrad, prior, clipped", "sgd, estimator A", "wake-sleep", "importance-weighted", "gaussian", "autoencoder"],
)
def test_every_objective_can_be_stacked(common: tuple[str, ...], tmp_path: Path) -> None:
    grid = [("model.latent=3", "seed=1"), ("model.latent=6",)]
    short = ("train.samples=200",)
    configs, stacked = _runs(tmp_path / "stacked", grid, *short, *common)
    run_stacked(configs, stacked)
    _, alone = _runs(tmp_path / "alone", grid, *short, *common)
    for config, run, other in zip(configs, alone, stacked, strict=True):
        run_alone(config, run)
        for a, b in zip(losses(run), losses(other), strict=True):
            assert b == pytest.approx(a, rel=2e-5)


def test_checkpoints_are_those_of_runs_alone_and_interchangeable(tmp_path: Path) -> None:
    grid = [("model.latent=3", "seed=1"), ("model.latent=6", "optim.lr=5e-3")]
    configs, whole = _runs(tmp_path / "whole", grid, *FIFTY)
    run_stacked(configs, whole)

    pairs = [configured(*FIFTY, *overrides) for overrides in grid]
    stopped = [make_run(tmp_path / f"half{n}", *pair, stop=StopAfter(25)) for n, pair in enumerate(pairs)]
    with pytest.raises(Stopped):
        run_stacked(configs, stopped)
    steps = {state(run)["step"] for run in stopped}
    assert len(steps) == 1
    assert 0 < steps.pop() < 50

    for number, (pair, run) in enumerate(zip(pairs, stopped, strict=True)):
        run.directory.release()
        again = make_run(tmp_path / f"half{number}", *pair, again=True)
        run_alone(pair[0], again)  # alone, after a stacked start
        for name, weights in state(again)["module"].items():
            torch.testing.assert_close(weights, state(whole[number])["module"][name], rtol=1e-4, atol=1e-5)


def test_a_stack_that_was_stopped_continues_bit_for_bit(tmp_path: Path) -> None:
    grid = [("model.latent=3",), ("model.latent=6", "seed=2")]
    configs, whole = _runs(tmp_path / "whole", grid, *FIFTY)
    results = run_stacked(configs, whole)
    pairs = [configured(*FIFTY, *overrides) for overrides in grid]
    with pytest.raises(Stopped):
        run_stacked(configs, [make_run(tmp_path / f"{n}", *pair, stop=StopAfter(22)) for n, pair in enumerate(pairs)])
    # As if it had been killed after the first of two saves: one run is a checkpoint ahead of the other.
    ahead = [make_run(tmp_path / f"{n}", *pair, again=True, stop=StopAfter(9)) for n, pair in enumerate(pairs)][:1]
    with pytest.raises(Stopped):
        run_stacked(configs[:1], ahead)
    resumed = [make_run(tmp_path / f"{n}", *pair, again=True) for n, pair in enumerate(pairs)]
    assert state(resumed[0])["step"] > state(resumed[1])["step"]
    again = run_stacked(configs, resumed)
    for first, second, result, other in zip(whole, resumed, results, again, strict=True):
        assert losses(first) == losses(second)
        for name, weights in state(first)["module"].items():
            assert torch.equal(weights, state(second)["module"][name])
        assert isinstance(result, dict)
        assert isinstance(other, dict)
        assert result["test/bound"] == other["test/bound"]


def test_a_run_that_diverges_does_not_change_the_others(tmp_path: Path) -> None:
    grid = [("optim.lr=1e-3",), ("optim.lr=1e12",), ("optim.lr=2e-3",)]
    common = ("train.samples=300", "optim.name=sgd", "optim.momentum=0")
    configs, runs = _runs(tmp_path / "stacked", grid, *common)
    results = run_stacked(configs, runs)
    assert isinstance(results[1], TrainingError)
    assert "not finite at step" in str(results[1])
    _, alone = _runs(tmp_path / "alone", grid, *common)
    for number in (0, 2):
        assert not isinstance(results[number], PaperbenchError)
        run_alone(configs[number], alone[number])
        for a, b in zip(losses(alone[number]), losses(runs[number]), strict=True):
            assert b == pytest.approx(a, rel=1e-5)
    with pytest.raises(TrainingError, match="not finite at step"):
        run_alone(configs[1], alone[1])


def test_runs_that_cannot_be_stacked() -> None:
    assert stack_key(configured("model.latent=3")[0]) == stack_key(configured("model.latent=20", "seed=3")[0])
    assert stack_key(configured("model.latent=3")[0]) != stack_key(configured("model.latent=200")[0])
    assert stack_key(configured()[0]) != stack_key(configured("train.batch_size=10")[0])
    assert stack_key(configured()[0]) != stack_key(configured("binarisation=static")[0])
    assert stack_key(configured("model=conv-vae")[0]) is None
    mcem = ("estimator=mcem", "model.latent=2", "evaluation.marginal.images=5")
    assert stack_key(configured(*mcem)[0]) is None


def test_long_runs_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(
        objectives, "CompiledFunction", lambda function, *, report: compiled.append(function) or function
    )
    for number, (overrides, expected) in enumerate(
        [(("compile=on",), 1), (("compile=auto",), 0), (("compile=off",), 0)]  # `auto`: 2 steps do not pay
    ):
        compiled.clear()
        pairs = [configured("train.samples=40", f"seed={seed}", *overrides) for seed in (0, 1)]
        run_alone(pairs[0][0], make_run(tmp_path / f"alone-{number}", *pairs[0]))
        assert len(compiled) == expected
        runs = [make_run(tmp_path / f"{number}-{seed}", *pair) for seed, pair in enumerate(pairs)]
        run_stacked([config for config, _ in pairs], runs)
        assert len(compiled) == 2 * expected  # a stack as a whole
