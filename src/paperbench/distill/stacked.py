"""Students side by side: `paperbench sweep distill temperature=1,2,4,8,20 seed=0,1,2 --stacked`.

Temperatures, weights of the two losses, rates, widths and seeds may differ. Teachers are trained one after another, each once.
Baseline students that several runs have in common are trained once, the different ones side by side, and then the distilled
ones. Each run has its own weights, order of images, checkpoints and results, as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from paperbench.config.schema import OutputConfig
from paperbench.config.validate import dump
from paperbench.distill.config import Distill
from paperbench.distill.hard import HardStage
from paperbench.distill.learners import Batch, HardLearner, Lessons, SoftLearner
from paperbench.distill.losses import hard_loss, logit_matching, soft_loss
from paperbench.distill.training import Part, load
from paperbench.engine.run import Run
from paperbench.engine.stacked_layers import stack
from paperbench.engine.stacked_trainer import Result, fit_stacked
from paperbench.engine.trainer import Trainer
from paperbench.errors import PaperbenchError

_PADDED_FREELY = 32
"""Units up to which a wider stack costs next to nothing, beside 784 pixels."""


def stack_key(config: Distill) -> Hashable | None:
    """Everything but what may differ within a stack; None for what cannot be stacked: convolutions, constrained weights."""
    if config.model.name != "mlp" or config.model.max_norm or config.nproc != 1:
        return None
    free = replace(
        config,
        seed=0,
        temperature=1.0,
        soft_weight=1.0,
        hard_weight=1.0,
        output=OutputConfig(),
        optim=replace(config.optim, lr=1.0),
        model=replace(config.model, width=_bracket(config.model.width)),
        teaching=replace(config.teaching, seed=0),
        teacher=(),
        transfer=replace(config.transfer, seed=0),
    )
    return repr(dump(free))


def _bracket(width: int) -> int:
    """The power of two that a width is below; all small ones are alike."""
    return max(_PADDED_FREELY, 1 << (width - 1).bit_length())


def run_stacked(configs: Sequence[Distill], runs: Sequence[Run]) -> list[Result]:
    """All runs together; the metrics of each, or the error that it alone failed with. See `engine.task.Stacks`."""
    data = load(configs[0], runs[0].device)
    failed: dict[int, PaperbenchError] = {}
    parts: dict[int, Part] = {}
    for number, (config, run) in enumerate(zip(configs, runs, strict=True)):
        try:
            part = Part.of(config, run, data)
            part.teach()
            parts[number] = part
        except PaperbenchError as error:
            _raise_if_stopped(error)
            failed[number] = error
    failed |= _train_baselines(parts)
    working = [number for number in parts if number not in failed]
    trainers = [parts[number].trainer() for number in working]
    results = fit_stacked(trainers, lambda chosen: Students([trainers[n] for n in chosen])) if trainers else []
    done = {
        number: _concluded(parts[number], trainer, result)
        for number, trainer, result in zip(working, trainers, results, strict=True)
    }
    return [failed.get(number) or done[number] for number in range(len(runs))]


def _train_baselines(parts: dict[int, Part]) -> dict[int, PaperbenchError]:
    """Trains the baselines that are not there yet, each once; which runs failed with them."""
    stages = {number: part.baseline for number, part in parts.items() if part.baseline is not None}
    wanted: dict[str, HardStage] = {}
    for stage in stages.values():
        if not stage.done():
            wanted.setdefault(stage.digest, stage)
    with ExitStack() as locks:
        # In one order everywhere: two processes that wait for each other's nets would wait for ever.
        for _, stage in sorted(wanted.items()):
            locks.enter_context(stage.locked())
        chosen = list(wanted.values())
        trainers = [stage.trainer() for stage in chosen]
        results = fit_stacked(trainers, lambda n: Students([trainers[k] for k in n])) if trainers else []
        outcome = {stage.digest: result for stage, result in zip(chosen, results, strict=True)}
        for stage, result in zip(chosen, results, strict=True):
            if not isinstance(result, PaperbenchError):
                stage.conclude(result)
    failed: dict[int, PaperbenchError] = {}
    for number, stage in stages.items():
        result = outcome.get(stage.digest)
        if isinstance(result, PaperbenchError):
            failed[number] = result
        elif result is not None and stage is not wanted[stage.digest]:
            stage.take_over(wanted[stage.digest])
    return failed


def _concluded(part: Part, trainer: Trainer, result: Result) -> Result:
    if isinstance(result, PaperbenchError):
        return result
    try:
        return part.conclude(cast(SoftLearner, trainer.module).net, result)
    except PaperbenchError as error:
        return error


def _raise_if_stopped(error: PaperbenchError) -> None:
    from paperbench.errors import EnvironmentError_, Stopped

    if isinstance(error, Stopped | EnvironmentError_):
        raise error


class Students:
    """Several students as one (`engine.stacked_trainer.Joint`): all of them learn from labels, or all from a teacher."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self._trainers = trainers
        learners = [cast("HardLearner | SoftLearner", trainer.module) for trainer in trainers]
        self.module: nn.Module = stack(learners)
        self._net = cast(nn.Module, self.module.net)
        self._lessons = [cast(Lessons, trainer.fetch) for trainer in trainers]
        orders = {(t.order.seed, t.order.length, t.order.batch_size) for t in trainers}
        # Equal orders of equal images give equal batches: they are made, and go through the first layer, once.
        self._one_order = len(orders) == len({lessons.images.identity for lessons in self._lessons}) == 1
        self._losses = _joint_losses(learners, trainers[0].run.device)

    def fetch(self, step: int) -> Batch:
        """Inputs and labels (S, B, ...), or (B, ...) where all models see the same images; targets always (S, B, K)."""
        if self._one_order:
            inputs, labels, rows = self._lessons[0].images(self._trainers[0].order.batch(step))
            told = [lessons.targets[rows] for lessons in self._lessons if lessons.targets is not None]
            return Batch(inputs, labels, torch.stack(told) if told else None)
        batches = [lessons(t.order.batch(step)) for lessons, t in zip(self._lessons, self._trainers, strict=True)]
        told = [batch.targets for batch in batches if batch.targets is not None]
        return Batch(
            torch.stack([batch.inputs for batch in batches]),
            torch.stack([batch.labels for batch in batches]),
            torch.stack(told) if told else None,
        )

    def losses(self, batch: Batch, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        logits = self._net(batch.inputs).float()
        labels = batch.labels.expand(logits.shape[:2])
        return self._losses(logits, labels, batch.targets)


def _joint_losses(
    learners: Sequence[HardLearner | SoftLearner], device: torch.device
) -> Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]:
    """The losses of (S, B, K) logits, (S,) each, by the names that a model alone gives them."""
    soft = [learner for learner in learners if isinstance(learner, SoftLearner)]
    if not soft:
        return lambda logits, labels, _: {"loss": hard_loss(logits, labels)}
    temperatures = torch.tensor([learner.temperature for learner in soft], device=device)
    soft_weights = torch.tensor([learner.soft_weight for learner in soft], device=device)
    hard_weights = torch.tensor([learner.hard_weight for learner in soft], device=device)
    match_logits = soft[0].match_logits

    def losses(logits: Tensor, labels: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        assert targets is not None
        told = logit_matching(logits, targets) if match_logits else soft_loss(logits, targets, temperatures)
        return {"loss_soft": soft_weights * told, "loss_hard": hard_weights * hard_loss(logits, labels)}

    return losses
