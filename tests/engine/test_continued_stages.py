from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paperbench.config.schema import OptimConfig
from paperbench.engine import launch, metriclog
from paperbench.engine.optim import build_optimizer, lr_factor
from paperbench.engine.order import EpochOrder
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.stages import stage
from paperbench.engine.trainer import Trainer
from paperbench.errors import EXIT_DONE, EXIT_STOPPED
from tests.engine import toy


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


@pytest.fixture(autouse=True)
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    monkeypatch.setattr(toy, "run", two_stages)


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
