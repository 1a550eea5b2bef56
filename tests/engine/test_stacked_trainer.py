"""Steps taken together against steps taken alone, for nets with dropout, and what goes wrong with one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.config.schema import OptimConfig
from paperbench.engine import metriclog
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.clock import SaveTimer
from paperbench.engine.metriclog import JsonLines, MetricLog
from paperbench.engine.optim import build_optimizer, lr_factor
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.engine.signals import StopFlag
from paperbench.engine.stacked_layers import stack
from paperbench.engine.stacked_trainer import fit_stacked
from paperbench.engine.trainer import Trainer
from paperbench.errors import DiskFullError, Stopped

POINTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
CLASSES = (POINTS[:, 0] > 0).long()
STEPS = 12


class Classifier(nn.Module):
    """Dropout from the global generator, noise from the step's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Dropout(0.1), nn.Linear(6, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 2))

    def losses(self, x: Tensor, classes: Tensor) -> dict[str, Tensor]:
        scores = self.net(x)
        chosen = F.log_softmax(scores.float(), -1).gather(-1, classes.unsqueeze(-1))
        return {"loss_class": -chosen.mean((-2, -1)), "loss_size": 0.01 * scores.square().mean((-2, -1))}

    def forward(self, batch: tuple[Tensor, Tensor], stream: torch.Generator) -> dict[str, Tensor]:
        x, classes = batch
        return self.losses(x + 0.1 * torch.randn(x.shape, generator=stream), classes)


class Joint:
    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = trainers
        self.module = stack([trainer.module for trainer in trainers])

    def fetch(self, step: int) -> tuple[Tensor, Tensor]:
        batches = [trainer.fetch(trainer.order.batch(step)) for trainer in self.trainers]
        x, classes = (torch.stack(parts) for parts in zip(*batches, strict=True))
        return x, classes

    def losses(self, batch: tuple[Tensor, Tensor], streams: Sequence[torch.Generator]) -> Mapping[str, Tensor]:
        x, classes = batch
        noise = torch.stack([torch.randn(x.shape[1:], generator=stream) for stream in streams])
        losses: Any = self.module.losses
        return losses(x + 0.1 * noise, classes)


@pytest.fixture
def made() -> Any:
    """Makes trainers, and closes their files in the end."""
    runs: list[Run] = []

    def make(folder: Path, *, seed: int, width: int, lr: float, clip_norm: float = 0.0) -> Trainer:
        directory = RunDirectory.create(folder, "toy", {"seed": seed}, folder)
        run = Run(
            directory=directory,
            device=torch.device("cpu"),
            precision="float32",
            ranks=Ranks(),
            reporter=SilentReporter(),
            stop=StopFlag(),
            log=MetricLog([JsonLines(directory.metrics_file)]),
            checkpoints=CheckpointStore(directory.checkpoints),
            seed=seed,
            config_hash=f"{seed}",
        )
        runs.append(run)
        seed_everything(seed, MODEL_INIT)
        module = Classifier(width)
        config = OptimConfig(name="adamw", lr=lr, weight_decay=0.1, schedule="cosine")

        def fetch(key: BatchKey) -> tuple[Tensor, Tensor]:
            index = torch.from_numpy(key.indices)
            return POINTS[index], CLASSES[index]

        def evaluate() -> dict[str, float]:
            with torch.no_grad():
                return {"test/error": float((module.net(POINTS).argmax(-1) != CLASSES).float().mean())}

        return Trainer(
            run=run,
            module=module,
            optimizer=build_optimizer(config, [{"params": list(module.named_parameters())}]),
            lr_factor=lr_factor(config, STEPS),
            order=EpochOrder(len(POINTS), 8, seed),
            fetch=fetch,
            steps=STEPS,
            clip_norm=clip_norm,
            log_every=1,
            checkpoint_every=5,
            evaluate_at=[4],
            evaluate=evaluate,
            watch="test/error",
            watch_mode="min",
        )

    yield make
    for run in runs:
        run.log.close()
        run.directory.release()


def records(trainer: Trainer) -> list[dict[str, float]]:
    clock = ("time", "train/samples_per_second")
    found = metriclog.read(trainer.run.directory.metrics_file)
    return [{name: value for name, value in record.items() if name not in clock} for record in found]


SETTINGS: tuple[dict[str, Any], ...] = (
    {"seed": 1, "width": 5, "lr": 0.01, "clip_norm": 0.5},
    {"seed": 2, "width": 9, "lr": 0.03},
    {"seed": 3, "width": 9, "lr": 0.01, "clip_norm": 0.1},
)


def test_records_and_checkpoints_are_those_of_training_alone(tmp_path: Path, made: Any) -> None:
    alone = [made(tmp_path / f"alone{n}", **s) for n, s in enumerate(SETTINGS)]
    expected = [trainer.fit() for trainer in alone]
    together = [made(tmp_path / f"together{n}", **s) for n, s in enumerate(SETTINGS)]
    results = fit_stacked(together, lambda numbers: Joint([together[n] for n in numbers]))
    for one, other, result, values in zip(alone, together, results, expected, strict=True):
        assert isinstance(result, dict)
        assert result.keys() == values.keys()
        for a, b in zip(records(one), records(other), strict=True):
            assert b == pytest.approx(a, rel=1e-4, abs=1e-6)
        first, second = one.run.checkpoints.load(), other.run.checkpoints.load()
        assert first is not None
        assert second is not None
        assert first[0].keys() == second[0].keys()
        assert first[1] == second[1] == STEPS
        for name, weights in first[0]["module"].items():
            torch.testing.assert_close(second[0]["module"][name], weights, rtol=1e-3, atol=1e-5)
        assert one.run.checkpoints.step_of("best") == other.run.checkpoints.step_of("best")


def test_a_disk_that_is_full_for_one_is_no_matter_of_the_others(
    tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = [made(tmp_path / f"{n}", **s) for n, s in enumerate(SETTINGS)]

    def full(*_: Any, **__: Any) -> None:
        raise DiskFullError("no room")

    monkeypatch.setattr(together[1].run.checkpoints, "save", full)
    results = fit_stacked(together, lambda numbers: Joint([together[n] for n in numbers]))
    assert isinstance(results[1], DiskFullError)
    for number in (0, 2):
        assert isinstance(results[number], dict)
        assert together[number].run.checkpoints.step_of() == STEPS


def test_models_side_by_side_take_equal_numbers_of_steps(tmp_path: Path, made: Any) -> None:
    together = [made(tmp_path / f"{n}", **s) for n, s in enumerate(SETTINGS[:2])]
    together[1].steps = STEPS + 1
    with pytest.raises(ValueError, match="equal numbers of steps"):
        fit_stacked(together, lambda numbers: Joint([together[n] for n in numbers]))


def test_when_the_clock_of_one_says_so_all_are_saved_at_that_step(tmp_path: Path, made: Any) -> None:
    together = [made(tmp_path / f"{n}", **s) for n, s in enumerate(SETTINGS)]
    saves: dict[int, list[int]] = {}
    for number, trainer in enumerate(together):
        trainer.checkpoint_every = 100
        trainer.evaluate_at = frozenset()
        trainer.save_timer = SaveTimer(0)
        saves[number] = []
        original = trainer.run.checkpoints.save

        def save(*args: Any, step: int, own: list[int] = saves[number], original: Any = original, **rest: Any) -> None:
            own.append(step)
            original(*args, step=step, **rest)

        object.__setattr__(trainer.run.checkpoints, "save", save)
    together[1].save_timer = SaveTimer(7, iter(range(1000)).__next__)  # a look a step, and one when it starts
    fit_stacked(together, lambda numbers: Joint([together[n] for n in numbers]))
    assert saves[0] == saves[1] == saves[2]
    assert saves[0][0] == 7
    assert set(saves[0][1:]) == {STEPS}


def test_all_are_saved_after_the_last_step_that_is_asked_for(tmp_path: Path, made: Any) -> None:
    together = [made(tmp_path / f"{n}", **s) for n, s in enumerate(SETTINGS)]
    for trainer in together:
        trainer.run.stop.last_step = 7
    for _ in range(2):
        with pytest.raises(Stopped, match=f"at step 7 of {STEPS}"):
            fit_stacked(together, lambda numbers: Joint([together[n] for n in numbers]))
        assert [trainer.run.checkpoints.step_of() for trainer in together] == [7, 7, 7]
