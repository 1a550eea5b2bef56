"""One run in parts: what it trains, how, and what is measured and drawn when it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from paperbench.engine import compiling
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.vae import build, pictures, pixels
from paperbench.vae.config import VaeTrain
from paperbench.vae.evaluation import Evaluator
from paperbench.vae.mcem import Mcem, RepeatedOrder
from paperbench.vae.objectives import Objective
from paperbench.vae.pixels import Pixels

COMPILED_FROM = 20_000
"""Steps from which on compiling, which takes about a minute on two cores, is won back."""


def load(config: VaeTrain, device: torch.device) -> tuple[Pixels, Pixels]:
    """Training and test images on the device."""
    train, test = (
        pixels.load(config.data, split, binarisation=config.binarisation, device=device) for split in ("train", "test")
    )
    return train, test


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a run consists of. `trainer.module` is `objective`."""

    config: VaeTrain
    run: Run
    objective: Objective
    trainer: Trainer
    evaluator: Evaluator
    test: Pixels

    @classmethod
    def of(cls, config: VaeTrain, run: Run, train: Pixels, test: Pixels) -> Part:
        """Everything that the configuration describes, on the run's device, at its start."""
        seed_everything(run.seed, MODEL_INIT)
        objective = build.objective(config, size=train.size, images=len(train)).to(run.device)
        evaluator = Evaluator(config, objective, train, test, run)
        trainer = _trainer(config, objective, train, run, evaluator)
        return cls(config=config, run=run, objective=objective, trainer=trainer, evaluator=evaluator, test=test)

    def compile(self, objective: Objective) -> None:
        """Compiles the losses of `objective`, the run's own or that of its stack, where the configuration asks for it."""
        run = self.run
        if compiling.wanted(
            self.config.compile, device=run.device, steps=self.trainer.steps, worth_it_from=COMPILED_FROM
        ):
            objective.compile_losses(run.reporter.message)

    def conclude(self, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics of the run: those of training, and what is measured once at its end. Draws the pictures."""
        self.objective.eval()
        metrics = {**metrics, **self.evaluator.likelihood()}
        if self.run.ranks.is_main and self.config.evaluation.pictures:
            directory = self.run.directory
            loss_curves(directory.metrics_file, directory.figures / "losses.png")
            pictures.bound_curves(
                directory.metrics_file, directory.figures / "bound.png", batch_size=self.config.train.batch_size
            )
            pictures.draw(self.objective, self.test, directory.figures, seed=self.config.seed)
        return metrics


def _trainer(config: VaeTrain, objective: Objective, train: Pixels, run: Run, evaluator: Evaluator) -> Trainer:
    # The prior's gradient is that of |weights|^2 / 2, and the loss is that of one image.
    decay = config.optim.weight_decay + (1.0 / len(train) if config.prior else 0.0)

    def fetch(key: BatchKey) -> Any:
        x = train.batch(key, seed=run.seed)
        if isinstance(objective, Mcem):
            return x, torch.from_numpy(key.indices).to(run.device), key.step
        return x

    return build_trainer(
        run,
        objective,
        optim=replace(config.optim, weight_decay=decay),
        loop=config.train,
        order=_order(config, len(train), run),
        fetch=fetch,
        evaluate=evaluator,
        evaluate_at=[-(-samples // config.train.batch_size) for samples in config.evaluation.at_samples],
    )


def _order(config: VaeTrain, images: int, run: Run) -> EpochOrder:
    batch = config.train.batch_size
    if config.estimator == "mcem":
        return RepeatedOrder(images, batch, run.seed, times=config.mcem.updates)
    return EpochOrder(images, batch, run.seed, run.ranks.rank, run.ranks.world)
