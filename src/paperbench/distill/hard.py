"""Nets trained on labels, which several runs share: the teacher and the baseline of a sweep over temperatures are the same.

Everything that decides the weights of such a net is its recipe: architecture, optimizer, schedule, seed, the pixels and labels
themselves, and the machine's settings. A net is trained in `<output.root>/nets/<hash of the recipe>/`, under a lock, by
whichever run needs it first. Another run that needs it meanwhile waits; if the first one is killed, the next goes on from
its last checkpoint. Each run keeps a copy of the finished weights, so it does not depend on the folder afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.distill.build import build
from paperbench.distill.config import NetConfig
from paperbench.distill.inputs import Images, Jittered
from paperbench.distill.learners import HardLearner, Lessons
from paperbench.distill.nets import Net
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.engine.stages import stage
from paperbench.engine.store import StoreEntry, content_key, recorded_folder
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.errors import CheckpointError

FORMAT = 1
"""Counted up when the same recipe would give other weights."""

SHARED = "nets"
"""Folder below `output.root`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights. `images` is a fingerprint of those it learns from, `chosen_on` of those that stop it early."""

    net: NetConfig
    optim: OptimConfig
    samples: int
    batch_size: int
    clip_norm: float
    jitter: int
    seed: int
    images: str
    chosen_on: str = ""
    evaluate_every: int = 0
    machine: tuple[str, str, int] = ("cpu", "float32", 0)
    """Kind of device, precision, threads: sums taken in another order are other numbers."""

    @property
    def steps(self) -> int:
        return -(-self.samples // self.batch_size)

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {"format": FORMAT, **asdict(self)}

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return content_key(self.as_dict())


def machine_of(run: Run) -> tuple[str, str, int]:
    """What the machine contributes to a recipe."""
    threads = torch.get_num_threads() if run.device.type == "cpu" else 0
    return run.device.type, run.precision, threads


def shared_folder(run: Run, output_root: str) -> Path:
    """Return where the run's shared nets lie; every session of a run uses the same folder."""
    return recorded_folder(run, run.directory.checkpoints / "nets.json", Path(output_root) / SHARED)


@dataclass(kw_only=True)
class HardStage:
    """One such net as a stage of a run.

    rows: what it learns from, (n,) positions in `images`, None for all. `evaluate(net)` gives metrics; with `watch` the weights
    that were best by that metric (a minimum) are the result, not the last ones.
    """

    name: str
    recipe: Recipe
    run: Run
    folder: Path
    images: Images
    rows: torch.Tensor | None
    evaluate: Callable[[Net], dict[str, float]]
    log_every: int
    checkpoint_every: int
    evaluate_every: int
    watch: str | None = None
    before: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        seed_everything(self.recipe.seed, MODEL_INIT)
        self.net = build(self.recipe.net, size=self.images.size, classes=len(self.images.classes)).to(self.run.device)
        self.metrics: dict[str, float] = {}
        self.digest = self.recipe.digest()
        self._own = CheckpointStore(self.run.directory.checkpoints / self.name, self.run.reporter)
        self._entry = StoreEntry(self.folder, self.digest, recipe=self.recipe.as_dict())
        self._learner = HardLearner(self.net)

    def done(self) -> bool:
        """Whether the run has the finished net already; loads it."""
        loaded = self._own.load() if self._own.exists() else None
        if loaded is None or loaded[0].get("recipe") != self.digest:
            return False
        self.net.load_state_dict(loaded[0]["weights"])
        self.metrics = dict(loaded[0]["metrics"])
        return True

    def train(self) -> None:
        """Trains the net, or finds it trained, and keeps a copy of it in the run."""
        if self.done():
            return
        with self.locked():
            self.conclude(self.trainer().fit())

    def locked(self) -> AbstractContextManager[None]:
        """The shared folder, for this process alone. Raises `Stopped` when the run is asked to stop while it waits."""
        return self._entry.locked(self.run, self.name)

    def trainer(self) -> Trainer:
        """The trainer of the net, in the shared folder; call it `locked`."""
        recipe = self.recipe
        view = stage(
            self.run,
            self.name,
            before=self.before,
            total=self.total,
            seed=recipe.seed,
            checkpoints=self._entry.path,
            identity=self.digest,
        )
        if view.checkpoints.step_of() == recipe.steps:
            self.run.reporter.message(f"{self.name}: found trained in {self._entry.path}")
        batches = Jittered(self.images, reach=recipe.jitter, seed=recipe.seed, chosen=self.rows)

        loop = LoopConfig(
            samples=recipe.samples,
            batch_size=recipe.batch_size,
            clip_norm=recipe.clip_norm,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            evaluate_every=self.evaluate_every,
        )
        return build_trainer(
            view,
            self._learner,
            optim=recipe.optim,
            loop=loop,
            order=EpochOrder(len(batches), recipe.batch_size, recipe.seed),
            fetch=Lessons(batches),
            evaluate=lambda: self.evaluate(self.net),
            watch=self.watch,
            watch_mode="min",
        )

    def conclude(self, metrics: dict[str, float]) -> None:
        """Takes the metrics of the finished training, and keeps a copy of the net in the run."""
        if self.watch is not None:
            self._take_best()
            metrics = {**metrics, **self.evaluate(self.net)}
        self._finish(metrics)

    def _finish(self, metrics: dict[str, float]) -> None:
        self.metrics = metrics
        state: dict[str, Any] = {"recipe": self.digest, "weights": self.net.state_dict(), "metrics": self.metrics}
        self._own.save(state, step=self.recipe.steps)

    def take_over(self, other: HardStage) -> None:
        """Makes what another run's stage of the same recipe has just reached this one's result as well."""
        self.net.load_state_dict(other.net.state_dict())
        self._finish(dict(other.metrics))

    def _take_best(self) -> None:
        loaded = CheckpointStore(self._entry.path, self.run.reporter).load("best")
        if loaded is None:
            raise CheckpointError(
                f"{self._entry.path} has lost its checkpoints; `paperbench resume` trains the net anew"
            )
        self._learner.load_state_dict(loaded[0]["module"])
