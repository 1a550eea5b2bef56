"""A stage sees the run as its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paperbench.engine import metriclog
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import JsonLines, MetricLog
from paperbench.engine.ranks import Ranks
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.engine.stages import stage
from tests.distill.runs import CrashingReporter


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    directory = RunDirectory.create(tmp_path, "toy", {"task": "toy"}, tmp_path / "run")
    made = Run(
        directory=directory,
        device=torch.device("cpu"),
        precision="float32",
        ranks=Ranks(),
        reporter=CrashingReporter(),
        stop=StopFlag(),
        log=MetricLog([JsonLines(directory.metrics_file)]),
        checkpoints=CheckpointStore(directory.checkpoints),
        seed=3,
        config_hash="abc",
    )
    yield made
    made.log.close()
    directory.release()


def test_numbers_are_logged_under_its_name(run: Run) -> None:
    stage(run, "first").log.write(5, {"train/loss": 1.0})
    second = stage(run, "second")
    second.log.write(5, {"train/loss": 2.0})
    second.log.close()
    run.log.write(6, {"after": 3.0})  # the run's own log stays open
    records = metriclog.read(run.directory.metrics_file)
    assert {key: value for key, value in records[0].items() if key != "time"} == {
        "step": 5, "first/train/loss": 1.0, "second/train/loss": 2.0,
    }  # fmt: skip
    assert records[1]["after"] == 3.0


def test_checkpoints_seed_and_identity_are_its_own(run: Run, tmp_path: Path) -> None:
    plain = stage(run, "first")
    assert plain.checkpoints.directory == run.directory.checkpoints / "first"
    assert (plain.seed, plain.config_hash) == (3, "abc")
    shared = stage(run, "second", seed=8, checkpoints=tmp_path / "shared", identity="xyz")
    assert shared.checkpoints.directory == tmp_path / "shared"
    assert (shared.seed, shared.config_hash) == (8, "xyz")


def test_steps_count_towards_those_of_the_whole_run(run: Run) -> None:
    view = stage(run, "second", before=100, total=150)
    view.directory.update_status(step=20, steps=50, best=None)
    assert run.directory.status()["step"] == 120
    assert run.directory.status()["steps"] == 150
    run.directory.update_status(message="between")
    assert run.directory.status()["step"] == 120


def test_it_holds_the_lock_of_the_run(run: Run) -> None:
    assert stage(run, "first").directory.is_locked()
    run.directory.release()
    assert not stage(run, "first").directory.is_locked()


def test_the_reporter_is_told_the_stage(run: Run) -> None:
    reporter = CrashingReporter()
    view = stage(replace(run, reporter=reporter), "teacher").reporter
    view.progress("train", 1, 2, {})
    view.progress("evaluate", 1, 2, {})
    view.message("resumed")
    view.close()
    assert reporter.phases == ["teacher", "teacher, evaluate"]
    assert reporter.messages == ["teacher: resumed"]
