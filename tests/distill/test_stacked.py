"""Stacked students are the students that they would be alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.distill.task import stack_key
from paperbench.distill.training import Distillation
from paperbench.engine import metriclog
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.engine.stacked import execute_stacked
from tests.distill.runs import (
    CrashError,
    CrashingReporter,
    assert_same_weights,
    metrics_of,
    resolved,
    resume,
    train,
    weights,
)

LONG = ("train.samples=1000", "train.log_every=5", "train.checkpoint_every=15", "train.evaluate_every=25")
"""Fifty steps of 20."""

KINDS = (
    ("temperature=1", "seed=0"),
    ("temperature=20", "seed=0"),
    ("temperature=4", "seed=1", "model.width=7"),
    ("temperature=4", "hard_weight=0.5", "optim.lr=0.003", "seed=1"),
)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Distillation, "_draw", lambda *_: None)


def _stacked(
    configs: Sequence[dict[str, Any]], directories: Sequence[Path], reporter: CrashingReporter | None = None
) -> list[dict[str, float]]:
    made = []
    for config, path in zip(configs, directories, strict=True):
        if path.exists():
            made.append(RunDirectory.open(path))
        else:
            made.append(RunDirectory.create(path.parent, "distill", config, path))
            made[-1].release()
    reporters = [reporter or CrashingReporter(), *(CrashingReporter() for _ in made[1:])]
    with StopFlag() as stop:
        return [metrics_of(outcome.results) for outcome in execute_stacked(made, reporters, stop)]


def _losses(run_dir: Path, stage: str) -> list[float]:
    return [r[f"{stage}/train/loss"] for r in metriclog.read(run_dir / "metrics.jsonl") if f"{stage}/train/loss" in r]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, float]], list[dict[str, float]]]:
    """Folder and metrics of the runs one after another, and stacked."""
    root = tmp_path_factory.mktemp("stacked")
    alone_root, joint_root = root / "alone", root / "joint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distillation, "_draw", lambda *_: None)
        alone = [
            train(resolved(alone_root / "out", *LONG, *kind), alone_root / str(number))
            for number, kind in enumerate(KINDS)
        ]
        joint = _stacked(
            [resolved(joint_root / "out", *LONG, *kind) for kind in KINDS],
            [joint_root / str(number) for number in range(len(KINDS))],
        )
    return alone_root, joint_root, alone, joint


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_losses_are_those_of_separate_runs_over_fifty_steps(both: Any, number: int) -> None:
    alone, joint, _, _ = both
    for stage in ("teacher", "baseline", "distilled"):
        expected = _losses(alone / str(number), stage)
        found = _losses(joint / str(number), stage)
        if stage == "distilled":
            assert len(found) == len(expected) == 10
        if found:  # a net that runs share is logged by the one that trained it
            assert found == pytest.approx(expected[-len(found) :] or _of_any(alone, stage, found), abs=1e-5)


def _of_any(alone: Path, stage: str, found: Sequence[float]) -> list[float]:
    """The losses that one of the separate runs logged for the same net."""
    logged = [_losses(alone / str(number), stage) for number in range(len(KINDS))]
    return min((losses for losses in logged if losses), key=lambda losses: abs(losses[-1] - found[-1]))


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_every_run_has_its_own_results_and_weights(both: Any, number: int) -> None:
    alone, joint, expected, found = both
    assert found[number].keys() == expected[number].keys()
    for name, value in expected[number].items():
        assert found[number][name] == pytest.approx(value, abs=2e-4 if "loss" in name or "nll" in name else 2), name
    for stage in ("teacher", "baseline", "distilled"):
        one, other = weights(alone / str(number), stage), weights(joint / str(number), stage)
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=2e-4)
    results = json.loads((joint / str(number) / "results.json").read_text())
    assert results["stacked"] == len(KINDS)


def test_a_stack_breaks_off_and_goes_on_to_the_same_weights(tmp_path: Path, both: Any) -> None:
    _, undisturbed, _, expected = both
    configs = [resolved(tmp_path / "out", *LONG, *kind) for kind in KINDS]
    directories = [tmp_path / str(number) for number in range(len(KINDS))]
    for stage, step in (("baseline", 20), ("distilled", 35)):
        with pytest.raises(CrashError):
            _stacked(configs, directories, CrashingReporter(stage, step))
    assert _stacked(configs, directories) == expected
    for number, directory in enumerate(directories):
        assert_same_weights(directory, undisturbed / str(number), "teacher", "baseline", "distilled")


def test_a_run_of_a_broken_stack_can_be_resumed_alone(tmp_path: Path, both: Any) -> None:
    _, _, expected, _ = both
    configs = [resolved(tmp_path / "out", *LONG, *kind) for kind in KINDS[:2]]
    directories = [tmp_path / str(number) for number in range(2)]
    with pytest.raises(CrashError):
        _stacked(configs, directories, CrashingReporter("distilled", 35))
    metrics = resume(directories[1])
    assert metrics["distilled/test/nll"] == pytest.approx(expected[1]["distilled/test/nll"], abs=1e-4)


def test_the_same_baseline_is_trained_once(tmp_path: Path) -> None:
    watching = CrashingReporter()
    configs = [resolved(tmp_path / "out", f"temperature={t}") for t in (1, 2, 4)]
    found = _stacked(configs, [tmp_path / str(number) for number in range(3)], watching)
    nets = [path for path in (tmp_path / "out" / "nets").iterdir() if (path / "recipe.json").is_file()]
    assert len(nets) == 2  # a teacher and a baseline
    assert len({metrics["baseline/test/nll"] for metrics in found}) == 1
    assert len({metrics["distilled/test/nll"] for metrics in found}) == 3


def test_students_that_see_other_images_in_the_same_order_do_not_share_them(tmp_path: Path) -> None:
    kinds = [("transfer.fraction=0.5", f"transfer.seed={seed}") for seed in (0, 1)]
    alone = [train(resolved(tmp_path / "a", *kind), tmp_path / f"alone-{n}") for n, kind in enumerate(kinds)]
    joint = _stacked([resolved(tmp_path / "b", *kind) for kind in kinds], [tmp_path / f"joint-{n}" for n in (0, 1)])
    for one, other in zip(alone, joint, strict=True):
        assert other["distilled/train/loss"] == pytest.approx(one["distilled/train/loss"], abs=1e-5)
    assert alone[0]["distilled/train/loss"] != pytest.approx(alone[1]["distilled/train/loss"], abs=1e-3)


# --- which runs share a stack -----------------------------------------------------------------------------------------


def _key(*overrides: str) -> Any:
    return stack_key(compose("distill", list(overrides)).config)


def test_students_that_may_share_a_stack() -> None:
    for override in (
        "temperature=3",
        "seed=4",
        "hard_weight=0.5",
        "optim.lr=0.1",
        "model.width=700",
        "teaching.seed=2",
    ):
        assert _key(override) == _key(), override


@pytest.mark.parametrize(
    "override",
    [
        "model.width=300",
        "model.layers=3",
        "train.samples=7",
        "transfer.omit=3",
        "targets=logits",
        "data=mnist",
        "jitter=1",
    ],
)
def test_students_that_may_not(override: str) -> None:
    assert _key(override) != _key()


@pytest.mark.parametrize("override", ["model=convnet", "model.max_norm=2", "nproc=2"])
def test_students_that_train_alone(override: str) -> None:
    assert _key(override) is None
