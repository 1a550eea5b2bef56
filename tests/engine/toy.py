"""A task small enough to be trained in a blink, with faults that strike once, at a step, when its config asks for them.

`fault` is `<what>@<step>`: `kill` (SIGKILL while the batch is fetched), `save` (SIGKILL halfway through writing the
checkpoint of that step), `term`, `int`, `usr1` (the signal, in the middle of the step), `nan` (a loss), `inf` (a gradient
behind a finite loss), `data` (an error while fetching), `full` (the disk, while saving), `hang` (a fetch that never ends).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paperbench import catalog
from paperbench.catalog import TaskSpec
from paperbench.config.schema import NonNegativeFloat, NonNegativeInt, PositiveInt, TrainConfig
from paperbench.engine import checkpoints, metriclog
from paperbench.engine.optim import build_optimizer, lr_factor
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.trainer import Trainer
from paperbench.errors import DataError

SPEC = TaskSpec(
    name="toy", verb="train", summary="a toy", schema="tests.engine.toy:ToyConfig", module="tests.engine.toy"
)
ROOT = Path(__file__).parents[2]
SIGNALS = {"term": signal.SIGTERM, "int": signal.SIGINT, "usr1": signal.SIGUSR1}


@dataclass(kw_only=True)
class ToyConfig(TrainConfig):
    length: PositiveInt = 12
    width: PositiveInt = 8
    plain: bool = False
    """No noise, no dropout, no statistics of a batch: nothing that depends on how a batch is shared."""
    pace: NonNegativeFloat = 0.0
    """Seconds that a step takes at least."""
    fault: str = ""
    fault_rank: NonNegativeInt = 0
    evaluate: bool = True


def site(folder: Path, spec: TaskSpec = SPEC) -> dict[str, str]:
    """Return environment variables with which processes know a task that they never import. Writes into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = ", ".join(f"{key}={getattr(spec, key)!r}" for key in ("name", "verb", "summary", "schema", "module"))
    text = f"from paperbench import catalog\ncatalog.TASKS[{spec.name!r}] = catalog.TaskSpec({fields})\n"
    (folder / "sitecustomize.py").write_text(text)
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "TORCH_CPP_LOG_LEVEL": "ERROR"}


def register(monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """Makes the task known: for the length of a test, or for good in a process that runs nothing else."""
    if monkeypatch is None:
        catalog.TASKS["toy"] = SPEC
    else:
        monkeypatch.setitem(catalog.TASKS, "toy", SPEC)


def config(**changes: Any) -> dict[str, Any]:
    """A resolved configuration: 12 samples, batches of 4, so an epoch is steps 0, 1, 2, the next one 3, 4, 5 and so on."""
    resolved: dict[str, Any] = {
        "experiment": "toy",
        "task": "toy",
        "seed": 3,
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
        "optim": {"name": "adamw", "lr": 0.01, "schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.1},
        "train": {"samples": 36, "batch_size": 4, "log_every": 2, "checkpoint_every": 2, "evaluate_every": 3},
    }
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (resolved[section] if section else resolved)[name] = value
    return resolved


def plan(config: ToyConfig) -> Mapping[str, str]:
    return {"data": f"{config.length} made-up points", "schedule": f"{_steps(config)} steps"}


class Toy(nn.Module):
    """Batch normalisation, dropout and noise: every kind of state that a resume could get wrong."""

    def __init__(self, config: ToyConfig, strike: Callable[[str, int], bool]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(5, config.width),
            nn.Identity() if config.plain else nn.BatchNorm1d(config.width),
            nn.ReLU(),
            nn.Dropout(0.0 if config.plain else 0.2),
            nn.Linear(config.width, 2),
        )
        self._noise = 0.0 if config.plain else 0.1
        self._pace = config.pace
        self._strike = strike

    def forward(self, batch: tuple[int, Tensor, Tensor], stream: torch.Generator) -> dict[str, Tensor]:
        step, x, y = batch
        time.sleep(self._pace)
        for name, number in SIGNALS.items():
            if self._strike(name, step):
                os.kill(os.getpid(), number)
        out = self.body(x + self._noise * torch.randn(x.shape, generator=stream))
        losses = {"first": (out[:, 0] - y).square().mean(), "second": out[:, 1].abs().mean()}
        if self._strike("nan", step):
            losses["second"] = losses["second"] * float("nan")
        if self._strike("inf", step):
            losses["second"] = losses["second"] + torch.sqrt(out[:, 1] * 0.0).sum()  # 0, with the slope 0 * infinity
        return losses


def run(config: ToyConfig, run: Run) -> dict[str, float]:
    strike = _striker(config, run)
    points = torch.randn(config.length, 5, generator=torch.Generator().manual_seed(0))
    module = Toy(config, strike)

    def fetch(key: BatchKey) -> tuple[int, Tensor, Tensor]:
        if strike("kill", key.step):
            os.kill(os.getpid(), signal.SIGKILL)
        if strike("data", key.step):
            raise DataError(f"points.txt: no sample {key.indices[0]}")
        if strike("hang", key.step):
            time.sleep(3600)
        x = points[torch.from_numpy(key.indices)]
        return key.step, x + torch.from_numpy(key.epochs)[:, None] * 0.01, x.sum(1)

    def evaluate() -> dict[str, float]:
        with torch.no_grad():
            return {"test/error": float((module.body(points)[:, 0] - points.sum(1)).abs().mean())}

    _break_saves(run, strike)
    trainer = Trainer(
        run=run,
        module=module,
        optimizer=build_optimizer(config.optim, [{"params": module.parameters()}]),
        lr_factor=lr_factor(config.optim, _steps(config)),
        order=EpochOrder(config.length, config.train.batch_size, config.seed, run.ranks.rank, run.ranks.world),
        fetch=fetch,
        steps=_steps(config),
        clip_norm=config.train.clip_norm,
        log_every=config.train.log_every,
        checkpoint_every=config.train.checkpoint_every,
        checkpoint_seconds=config.train.checkpoint_seconds,
        evaluate_every=config.train.evaluate_every,
        prefetch=config.train.prefetch,
        evaluate=evaluate if config.evaluate else None,
        watch="test/error" if config.evaluate else None,
        watch_mode="min",
    )
    return trainer.fit()


def _steps(config: ToyConfig) -> int:
    return -(-config.train.samples // config.train.batch_size)


def _striker(config: ToyConfig, run: Run) -> Callable[[str, int], bool]:
    """Says once, at the right step and on the right rank, that the fault is due; a file remembers it for ever."""
    what, _, at = config.fault.partition("@")
    marker = run.directory.path / "fault-struck"

    def strike(name: str, step: int) -> bool:
        if name != what or step != int(at) or run.ranks.rank != config.fault_rank or marker.exists():
            return False
        marker.touch()
        return True

    return strike


def _break_saves(run: Run, strike: Callable[[str, int], bool]) -> None:
    original = run.checkpoints.save

    def save(state: dict[str, Any], *, step: int, best: bool = False) -> None:
        if strike("save", step):
            _write_half_then(lambda: os.kill(os.getpid(), signal.SIGKILL))
        if strike("full", step):
            _write_half_then(_raise_full)
        original(state, step=step, best=best)

    object.__setattr__(run.checkpoints, "save", save)


def _write_half_then(act: Callable[[], None]) -> None:
    """Makes the next checkpoint's file act once it holds half of what it should."""
    original = checkpoints._HashingFile.write
    written = 0

    def write(self: Any, data: Any) -> int:
        nonlocal written
        written += len(data)
        if written > 2000 and self._file is not None:
            self._file.flush()
            try:
                act()
            except OSError as error:
                self.error = error
            return len(data)
        return original(self, data)

    checkpoints._HashingFile.write = write  # type: ignore[method-assign]


def _raise_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def weights(run_dir: Path) -> dict[str, Tensor]:
    """The module's state in the last checkpoint of a run."""
    loaded = checkpoints.CheckpointStore(run_dir / "checkpoints", sweep=False).load()
    assert loaded is not None
    return loaded[0]["module"]


def record(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run without those that depend on the clock."""
    clock = {"time", "train/samples_per_second"}
    return [
        {name: value for name, value in entry.items() if name not in clock}
        for entry in metriclog.read(run_dir / "metrics.jsonl")
    ]
