"""Whole runs with specialists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paperbench.config.compose import compose
from paperbench.distill.specialists.task import plan
from paperbench.errors import ConfigError
from paperbench.records.metrics import metrics_of
from tests.distill.runs import CrashError, CrashingReporter, assert_same_weights, resume, train

TINY = (
    "scale=smoke",
    "device=cpu",
    "threads=1",
    "precision=float32",
    "data.max_train_images=300",
    "data.max_test_images=90",
    "model.width=12",
    "train.samples=400",
    "train.batch_size=40",
    "specialists.samples=80",
    "specialists.batch_size=20",
    "specialists.count=3",
    "specialists.size=6",
    "train.checkpoint_every=3",
    "train.log_every=1",
)
STAGES = ("generalist", "specialist-0", "specialist-1", "specialist-2")


def _resolved(root: Path, *overrides: str) -> dict[str, Any]:
    chosen = {text.partition("=")[0]: text for text in (*TINY, *overrides)}
    return compose("distill-specialists", [*chosen.values(), f"output.root={root}"]).resolved


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    root = tmp_path_factory.mktemp("specialists")
    return root / "run", train(_resolved(root), root / "run")


def test_a_run_reports_accuracy_and_coverage(undisturbed: tuple[Path, dict[str, float]]) -> None:
    run_dir, metrics = undisturbed
    assert metrics["specialists/count"] == 3
    for name in ("generalist", "specialists"):
        assert 0 <= metrics[f"{name}/test/accuracy"] <= 100
        assert 0 <= metrics[f"{name}/conditional/accuracy"] <= 100
    rows = {name: value for name, value in metrics.items() if name.startswith("coverage/")}
    assert sum(value for name, value in rows.items() if name.endswith("/examples")) == 90
    gained = sum(value for name, value in rows.items() if name.endswith("/more_correct"))
    assert gained == metrics["generalist/test/errors"] - metrics["specialists/test/errors"]
    assert {path.name for path in (run_dir / "figures").iterdir()} >= {"confusion.png", "course.png"}
    sets = json.loads((run_dir / "checkpoints" / "clusters.json").read_text())["sets"]
    assert [len(members) for members in sets] == [6, 6, 6]


def test_every_metric_of_a_run_is_declared(undisturbed: tuple[Path, dict[str, float]]) -> None:
    declared = metrics_of("distill-specialists")
    assert [name for name in undisturbed[1] if name not in declared] == []


@pytest.mark.parametrize(("stage", "step"), [("generalist", 5), ("specialist-1", 2)])
def test_a_run_resumes_to_the_same_weights(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, float]], stage: str, step: int
) -> None:
    with pytest.raises(CrashError):
        train(_resolved(tmp_path), tmp_path / "run", CrashingReporter(stage, step))
    assert resume(tmp_path / "run") == undisturbed[1]
    assert_same_weights(tmp_path / "run", undisturbed[0], *STAGES)


def test_soft_targets_and_whole_clusters(tmp_path: Path) -> None:
    overrides = ("specialists.soft_weight=0.5", "specialists.size=0", "clusters.temperature=3", "specialists.top=2")
    metrics = train(_resolved(tmp_path, *overrides), tmp_path / "run")
    assert 1 <= metrics["specialists/count"] <= 3
    assert "specialists/test/accuracy" in metrics


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["specialists.count=46"], "digit-pairs has 45 classes"),
        (["specialists.size=45"], "from 2 to 44"),
        (["specialists.size=1"], "from 2 to 44"),
        (["nproc=2"], "nproc=2"),
        (["model=convnet", "model.layers=9"], "model.layers=9"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(compose("distill-specialists", overrides).config)
