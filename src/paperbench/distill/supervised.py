"""Nets trained on labels, which several runs share: the teacher and the baseline of a sweep over temperatures are the same.

The recipe of such a net is everything that decides its weights: architecture, optimizer, schedule, seed, pixels and labels, and the
machine's settings. The net is trained in `<output.root>/nets/<hash of the recipe>/` (`engine.store`) by the first run that needs
it. Another run that needs it meanwhile waits; if the first one is killed, the next continues from its last checkpoint. Each run
keeps a copy of the final weights, so it does not depend on the folder afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from paperbench.config.digests import digest
from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.distill.batches import Images, JitteredBatches, LabelledBatches
from paperbench.distill.config import NetConfig, TorchvisionNet
from paperbench.distill.losses import SupervisedLoss
from paperbench.distill.nets import Net, build
from paperbench.distill.torchvision_nets import Classifier
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.engine.stages import stage
from paperbench.engine.store import StoreEntry, content_key, recorded_folder
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.errors import CheckpointError

FORMAT = 1
"""Increased when the same recipe gives other weights."""

SHARED = "nets"
"""Folder below `output.root`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights; its JSON is the key of the net, so names of fields do not change.

    images: fingerprint of the training images. chosen_on: of the validation images that early stopping uses.
    """

    net: NetConfig | TorchvisionNet
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
    """Device type, precision, threads: sums in another order are other numbers."""

    @property
    def steps(self) -> int:
        return -(-self.samples // self.batch_size)

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON holds it, with what a file of weights holds that it starts from."""
        recipe = {"format": FORMAT, **asdict(self)}
        if isinstance(self.net, TorchvisionNet) and self.net.weights:
            recipe["weights"] = digest(Path(self.net.weights))
        return recipe

    def digest(self) -> str:
        """Return the SHA-256 of the recipe."""
        return content_key(self.as_dict())


def machine_of(run: Run) -> tuple[str, str, int]:
    """Return the part of a recipe that depends on the machine."""
    threads = torch.get_num_threads() if run.device.type == "cpu" else 0
    return run.device.type, run.precision, threads


def shared_folder(run: Run, output_root: str) -> Path:
    """Return the folder of the run's shared nets; every session of a run uses the same one."""
    return recorded_folder(run, run.directory.checkpoints / "nets.json", Path(output_root) / SHARED)


@dataclass(kw_only=True)
class SupervisedStage:
    """A net trained on labels, as a stage of a run.

    rows: (n,) positions of its training images in `images`, None for all. `evaluate(net)` returns metrics; with `watch` the result
    is the weights with the smallest value of that metric, not the last ones.
    """

    name: str
    recipe: Recipe
    run: Run
    folder: Path
    images: Images
    rows: torch.Tensor | None
    evaluate: Callable[[Net | Classifier], dict[str, float]]
    log_every: int
    checkpoint_every: int
    checkpoint_seconds: float
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
        self._module = SupervisedLoss(self.net)

    def done(self) -> bool:
        """Load the finished net if the run has it; False if it has not."""
        loaded = self._own.load() if self._own.exists() else None
        if loaded is None or loaded[0].get("recipe") != self.digest:
            return False
        self.net.load_state_dict(loaded[0]["weights"])
        self.metrics = dict(loaded[0]["metrics"])
        return True

    def train(self) -> None:
        """Train the net, or load it where it is trained already, and keep a copy of it in the run."""
        if self.done():
            return
        with self.locked():
            self.finish(self.trainer().fit())

    def locked(self) -> AbstractContextManager[None]:
        """Lock the shared folder. Raises `Stopped` when the run is asked to stop while it waits."""
        return self._entry.locked(self.run, self.name)

    def trainer(self) -> Trainer:
        """Return the trainer of the net, in the shared folder; call it `locked`."""
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
        batches = JitteredBatches(self.images, reach=recipe.jitter, seed=recipe.seed, rows=self.rows)
        loop = LoopConfig(
            samples=recipe.samples,
            batch_size=recipe.batch_size,
            clip_norm=recipe.clip_norm,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            checkpoint_seconds=self.checkpoint_seconds,
            evaluate_every=self.evaluate_every,
        )
        return build_trainer(
            view,
            self._module,
            optim=recipe.optim,
            loop=loop,
            order=EpochOrder(len(batches), recipe.batch_size, recipe.seed),
            fetch=LabelledBatches(batches),
            evaluate=lambda: self.evaluate(self.net),
            watch=self.watch,
            watch_mode="min",
            cast_together=True,
        )

    def finish(self, metrics: dict[str, float]) -> None:
        """Keep the metrics of the finished training and a copy of the net in the run."""
        if self.watch is not None:
            self._load_best()
            metrics = {**metrics, **self.evaluate(self.net)}
        self._save(metrics)

    def _save(self, metrics: dict[str, float]) -> None:
        self.metrics = metrics
        state: dict[str, Any] = {"recipe": self.digest, "weights": self.net.state_dict(), "metrics": self.metrics}
        self._own.save(state, step=self.recipe.steps)

    def copy_from(self, other: SupervisedStage) -> None:
        """Copy the result of another run's stage of the same recipe."""
        self.net.load_state_dict(other.net.state_dict())
        self._save(dict(other.metrics))

    def _load_best(self) -> None:
        loaded = CheckpointStore(self._entry.path, self.run.reporter).load("best")
        if loaded is None:
            raise CheckpointError(
                f"{self._entry.path} has lost its checkpoints; `paperbench resume` trains the net again"
            )
        self._module.load_state_dict(loaded[0]["module"])
