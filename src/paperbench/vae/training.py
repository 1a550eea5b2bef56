"""The parts of a training run, how they are built, and how a trained model is loaded again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from paperbench.config.schema import LoopConfig
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.compiling import should_compile
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.reporter import Reporter
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.engine.transfer import to_device
from paperbench.errors import CheckpointError
from paperbench.vae import data, drawing
from paperbench.vae.config import VaeTrain
from paperbench.vae.data import Pixels
from paperbench.vae.evaluation import Evaluator
from paperbench.vae.objectives import Mcem, Objective, make_objective
from paperbench.vae.rate_search import AUTO, search_rate, search_steps

MIN_STEPS_TO_COMPILE = 20_000
"""Steps from which on compiling, which takes about a minute on two cores, saves time."""


def load_data(config: VaeTrain, device: torch.device) -> tuple[Pixels, Pixels]:
    """Load training and test images onto the device."""
    train, test = (
        data.load(config.data, split, binarisation=config.binarisation, device=device) for split in ("train", "test")
    )
    return train, test


@dataclass(frozen=True, kw_only=True)
class Training:
    """The parts of a run. `trainer.module` is `objective`."""

    config: VaeTrain
    run: Run
    objective: Objective
    trainer: Trainer
    evaluator: Evaluator
    test: Pixels
    rate_search: Mapping[str, float] = field(default_factory=dict)
    """What the search for the rate adds to the metrics."""

    @classmethod
    def build(cls, config: VaeTrain, run: Run, train: Pixels, test: Pixels) -> Training:
        """Build everything that the configuration describes on the run's device, after the search for a rate where it asks for one.

        Raises `Stopped` and `TrainingError` as `rate_search.search_rate`.
        """
        found: Mapping[str, float] = {}
        if config.optim.lr == AUTO:
            search = search_rate(config, run, lambda rate, view: _trainer_of_rate(config, rate, view, train, test))
            config, found = _with_rate(config, search.rate), search.metrics
        objective = _first_objective(config, run, train)
        evaluator = Evaluator(config, objective, train, test, run)
        trainer = _trainer(
            config,
            objective,
            train,
            run,
            loop=config.train,
            evaluate=evaluator,
            evaluate_at=[-(-samples // config.train.batch_size) for samples in config.evaluation.at_samples],
        )
        return cls(
            config=config,
            run=run,
            objective=objective,
            trainer=trainer,
            evaluator=evaluator,
            test=test,
            rate_search=found,
        )

    def compile(self, objective: Objective) -> None:
        """Compile the losses of `objective`, the run's own or that of its stack, where the configuration asks for it."""
        run = self.run
        if should_compile(
            self.config.compile, device=run.device, steps=self.trainer.steps, worth_it_from=MIN_STEPS_TO_COMPILE
        ):
            objective.compile_losses(run.reporter.message)

    def finish(self, metrics: dict[str, float]) -> dict[str, float]:
        """Add what is measured once at the end to the metrics of training, draw the figures, and return all metrics."""
        self.objective.eval()
        metrics = {**metrics, **self.evaluator.likelihood(), **self.rate_search}
        if self.run.ranks.is_main and self.config.evaluation.pictures:
            directory = self.run.directory
            draw, batch_size = self.run.draw, self.config.train.batch_size
            draw(loss_curves, directory.metrics_file, directory.figures / "losses.png")
            draw(drawing.plot_bound, directory.metrics_file, directory.figures / "bound.png", batch_size=batch_size)
            draw(drawing.draw_figures, self.objective, self.test, directory.figures, seed=self.config.seed)
        return metrics


def _with_rate(config: VaeTrain, rate: float) -> VaeTrain:
    return replace(config, optim=replace(config.optim, lr=rate))


def _first_objective(config: VaeTrain, run: Run, train: Pixels) -> Objective:
    """Build the objective with the weights that the run's seed begins with, on the run's device."""
    seed_everything(run.seed, MODEL_INIT)
    return make_objective(config, size=train.size, images=len(train)).to(run.device)


def _trainer_of_rate(config: VaeTrain, rate: float, view: Run, train: Pixels, test: Pixels) -> Trainer:
    """Build the trainer that tries a rate: the first steps of the run that has it, and a look at the training set."""
    config, steps = _with_rate(config, rate), search_steps(config)
    objective = _first_objective(config, view, train)
    evaluator = Evaluator(config, objective, train, test, view)
    loop = replace(
        config.train,
        samples=config.rate_search.samples,
        log_every=max(1, steps // 4),
        checkpoint_every=steps,
        evaluate_every=0,
    )
    return _trainer(config, objective, train, view, loop=loop, evaluate=evaluator.training_set)


def _trainer(
    config: VaeTrain,
    objective: Objective,
    train: Pixels,
    run: Run,
    *,
    loop: LoopConfig,
    evaluate: Callable[[], dict[str, float]],
    evaluate_at: Collection[int] = (),
) -> Trainer:
    def fetch(key: BatchKey) -> Any:
        x = train.train_batch(key, seed=run.seed)
        if isinstance(objective, Mcem):
            return x, to_device(key.indices, run.device), key.step
        return x

    return build_trainer(
        run,
        objective,
        optim=config.optim,
        loop=loop,
        groups=_groups(config, objective, len(train)),
        order=_order(config, len(train), run),
        fetch=fetch,
        evaluate=evaluate,
        evaluate_at=evaluate_at,
        cast_together=True,
    )


def _groups(config: VaeTrain, objective: Objective, images: int) -> list[dict[str, Any]] | None:
    """Return the parameters in groups: the prior p(theta) of section 5 is on the generative model's alone, not on the encoder's."""
    if not config.prior:
        return None
    # The prior's gradient is that of |weights|^2 / 2, and the loss is that of one image.
    decay = config.optim.weight_decay + 1.0 / images
    named = list(objective.named_parameters())
    generative = [entry for entry in named if not entry[0].startswith("encoder.")]
    encoder = [entry for entry in named if entry[0].startswith("encoder.")]
    groups: list[dict[str, Any]] = [{"params": generative, "weight_decay": decay}]
    return [*groups, {"params": encoder}] if encoder else groups


def _order(config: VaeTrain, images: int, run: Run) -> EpochOrder:
    batch = config.train.batch_size
    if config.estimator == "mcem":
        return RepeatedOrder(images, batch, run.seed, times=config.mcem.updates)
    return EpochOrder(images, batch, run.seed, run.ranks.rank, run.ranks.world)


class RepeatedOrder(EpochOrder):
    """Every batch of an `EpochOrder`, `times` times in a row: the steps of Monte Carlo EM that learn from one posterior sample."""

    def __init__(self, length: int, batch_size: int, seed: int, *, times: int) -> None:
        super().__init__(length, batch_size, seed)
        self.times = times

    def _slice(self, step: int, offset: int, count: int) -> BatchKey:
        return replace(super()._slice(step // self.times, offset, count), step=step)


def load_objective(
    config: VaeTrain,
    checkpoint: object,
    *,
    size: tuple[int, ...],
    device: torch.device,
    reporter: Reporter | None = None,
) -> tuple[Objective, int]:
    """Load the trained objective of `config`, for images of `size`, onto `device`; return it and the step of its checkpoint.

    `checkpoint` is a run directory or a checkpoint file. Raises ConfigError when there is none and CheckpointError when it is
    damaged or belongs to another model.
    """
    state, step, file = load_for_evaluation(str(checkpoint), reporter, which="last")
    weights = state["module"]
    # Chains of Monte Carlo EM belong to training images: as many as the checkpoint has.
    images = len(weights["chains"]) if "chains" in weights else 1
    objective = make_objective(config, size=size, images=images)
    try:
        objective.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split())
        raise CheckpointError(f"{file}: holds another model than the configuration describes: {first}") from error
    return objective.to(device).eval(), step


def load_model(config: VaeTrain, run_dir: Path) -> Objective:
    """Return the trained objective of a run, or of the run that an evaluation names; see `engine.task.LoadsModel`."""
    checkpoint = getattr(config, "checkpoint", "") or run_dir
    return load_objective(config, checkpoint, size=data.image_size(config.data), device=torch.device("cpu"))[0]
