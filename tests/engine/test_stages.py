"""A stage sees the run as its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paperbench.config.schema import OptimConfig
from paperbench.engine import launch, metriclog
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import JsonLines, MetricLog
from paperbench.engine.optim import build_optimizer, lr_factor
from paperbench.engine.order import EpochOrder
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.engine.stages import stage
from paperbench.engine.trainer import Trainer
from paperbench.errors import EXIT_DONE, EXIT_STOPPED
from tests.distill.runs import CrashingReporter
from tests.engine import toy


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


# --- a run of two stages ----------------------------------------------------------------------------------------------


class Line(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(start))

    def forward(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (self.slope * batch + torch.randn((), generator=generator)).square().mean()}


def train(run: Run, start: float, steps: int) -> float:
    module = Line(start)
    optim = OptimConfig(lr=0.1)
    Trainer(
        run=run,
        module=module,
        optimizer=build_optimizer(optim, [{"params": module.parameters()}]),
        lr_factor=lr_factor(optim, steps),
        order=EpochOrder(4, 2, run.seed),
        fetch=lambda key: torch.from_numpy(key.indices).float(),
        steps=steps,
        log_every=1,
        checkpoint_every=2,
    ).fit()
    return float(module.slope.detach())


def two_stages(config: toy.ToyConfig, run: Run) -> dict[str, float]:
    first = train(stage(run, "first", log_prefix=""), 1.0, 5)
    marker = run.directory.path / "stopped-once"
    if config.fault and not marker.exists():
        marker.touch()
        run.stop.set("a test")
    return {"first": first, "second": train(stage(run, "second", before=5, log_prefix="", log_offset=5), first, 6)}


@pytest.fixture
def two_stage_task(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    monkeypatch.setattr(toy, "run", two_stages)


@pytest.mark.usefixtures("two_stage_task")
def test_stages_are_recorded_one_after_the_other_and_resumed_where_they_were(tmp_path: Path) -> None:
    whole = launch.start(toy.config(), run_dir=tmp_path / "whole", reporter=SilentReporter())
    assert whole.exit_code == EXIT_DONE
    steps = [record["step"] for record in metriclog.read(tmp_path / "whole" / "metrics.jsonl")]
    assert steps == list(range(1, 12))
    assert {path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()} == {"first", "second"}

    stopped = launch.start(toy.config(fault="x@0"), run_dir=tmp_path / "stopped", reporter=SilentReporter())
    assert stopped.exit_code == EXIT_STOPPED
    resumed = launch.resume(tmp_path / "stopped", SilentReporter())
    assert resumed.results is not None
    assert whole.results is not None
    assert resumed.results["metrics"] == whole.results["metrics"]
