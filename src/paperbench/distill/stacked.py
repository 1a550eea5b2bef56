"""Stacked students: `paperbench sweep distill temperature=1,2,4,8,20 seed=0,1,2 --stacked`.

Temperatures, weights of the two losses, rates, widths and seeds may differ. Teachers are trained one after another, each once.
Baseline students that several runs share are trained once; different ones are stacked, and then the distilled students are. Each
run has its own weights, order of images, checkpoints and results, as if it were trained alone.
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
from paperbench.data.image_sets import TransferFoldersData
from paperbench.distill.batches import Batch, LabelledBatches
from paperbench.distill.config import Distill, NetConfig
from paperbench.distill.losses import DistillationLoss, SupervisedLoss, hard_loss, logit_matching, soft_loss
from paperbench.distill.supervised import SupervisedStage
from paperbench.distill.training import Distillation, load
from paperbench.engine.run import Run
from paperbench.engine.stacked_layers import stack
from paperbench.engine.stacked_trainer import Result, fit_stacked
from paperbench.engine.trainer import Trainer
from paperbench.errors import PaperbenchError

_PADDED_FREELY = 32
"""Units up to which a wider stack costs next to nothing, compared with 784 pixels."""


def stack_key(config: Distill) -> Hashable | None:
    """Return the settings that must be equal within a stack; None for what does not stack: convolutions, constrained weights, and
    students on folders, whose transfer sets may have no labels."""
    if not isinstance(config.model, NetConfig) or isinstance(config.data, TransferFoldersData):
        return None
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
    """Return the power of two at or above a width; all small widths share one."""
    return max(_PADDED_FREELY, 1 << (width - 1).bit_length())


def run_stacked(configs: Sequence[Distill], runs: Sequence[Run]) -> list[Result]:
    """Train all runs together; return the metrics of each, or the error of a run that failed. See `engine.task.Stacks`."""
    data = load(configs[0], runs[0].device)
    failed: dict[int, PaperbenchError] = {}
    parts: dict[int, Distillation] = {}
    for number, (config, run) in enumerate(zip(configs, runs, strict=True)):
        try:
            part = Distillation.of(config, run, data)
            part.prepare_teachers()
            parts[number] = part
        except PaperbenchError as error:
            _raise_if_stopped(error)
            failed[number] = error
    failed |= _train_baselines(parts)
    working = [number for number in parts if number not in failed]
    trainers = [parts[number].trainer() for number in working]
    results = fit_stacked(trainers, lambda chosen: Students([trainers[n] for n in chosen])) if trainers else []
    done = {
        number: _finished(parts[number], trainer, result)
        for number, trainer, result in zip(working, trainers, results, strict=True)
    }
    return [failed.get(number) or done[number] for number in range(len(runs))]


def _train_baselines(parts: dict[int, Distillation]) -> dict[int, PaperbenchError]:
    """Train the missing baselines, each once; return the runs that failed with them."""
    stages = {number: part.baseline for number, part in parts.items() if part.baseline is not None}
    wanted: dict[str, SupervisedStage] = {}
    for stage in stages.values():
        if not stage.done():
            wanted.setdefault(stage.digest, stage)
    with ExitStack() as locks:
        # One order everywhere: otherwise two processes could wait for each other's nets forever.
        for _, stage in sorted(wanted.items()):
            locks.enter_context(stage.locked())
        chosen = list(wanted.values())
        trainers = [stage.trainer() for stage in chosen]
        results = fit_stacked(trainers, lambda n: Students([trainers[k] for k in n])) if trainers else []
        outcome = {stage.digest: result for stage, result in zip(chosen, results, strict=True)}
        for stage, result in zip(chosen, results, strict=True):
            if not isinstance(result, PaperbenchError):
                stage.finish(result)
    failed: dict[int, PaperbenchError] = {}
    for number, stage in stages.items():
        result = outcome.get(stage.digest)
        if isinstance(result, PaperbenchError):
            failed[number] = result
        elif result is not None and stage is not wanted[stage.digest]:
            stage.copy_from(wanted[stage.digest])
    return failed


def _finished(part: Distillation, trainer: Trainer, result: Result) -> Result:
    if isinstance(result, PaperbenchError):
        return result
    try:
        return part.finish(cast(DistillationLoss, trainer.module).net, result)
    except PaperbenchError as error:
        return error


def _raise_if_stopped(error: PaperbenchError) -> None:
    from paperbench.errors import EnvironmentError_, Stopped

    if isinstance(error, Stopped | EnvironmentError_):
        raise error


class Students:
    """Several students as one module (`engine.stacked_trainer.Joint`): all learn from labels alone, or all from a teacher."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self._trainers = trainers
        modules = [cast("SupervisedLoss | DistillationLoss", trainer.module) for trainer in trainers]
        self.module: nn.Module = stack(modules)
        self._net = cast(nn.Module, self.module.net)
        self._batches = [cast(LabelledBatches, trainer.fetch) for trainer in trainers]
        orders = {(t.order.seed, t.order.length, t.order.batch_size) for t in trainers}
        # Equal orders of equal images give equal batches: one batch is gathered, and goes through the first layer once.
        self._one_order = len(orders) == len({fetch.images.identity for fetch in self._batches}) == 1
        self._losses = _joint_losses(modules, trainers[0].run.device)

    def fetch(self, step: int) -> Batch:
        """Return inputs and labels (S, B, ...), or (B, ...) where all models see the same images; targets are (S, B, K)."""
        if self._one_order:
            inputs, labels, rows = self._batches[0].images(self._trainers[0].order.batch(step))
            targets = [fetch.targets[rows] for fetch in self._batches if fetch.targets is not None]
            return Batch(inputs, labels, torch.stack(targets) if targets else None)
        batches = [
            fetch(trainer.order.batch(step)) for fetch, trainer in zip(self._batches, self._trainers, strict=True)
        ]
        targets = [batch.targets for batch in batches if batch.targets is not None]
        return Batch(
            torch.stack([batch.inputs for batch in batches]),
            torch.stack([batch.labels for batch in batches]),
            torch.stack(targets) if targets else None,
        )

    def losses(self, batch: Batch, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        logits = self._net(batch.inputs).float()
        labels = batch.labels.expand(logits.shape[:2])
        return self._losses(logits, labels, batch.targets)


def _joint_losses(
    modules: Sequence[SupervisedLoss | DistillationLoss], device: torch.device
) -> Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]:
    """Return a function of (S, B, K) logits that returns the losses, (S,) each, under the names of `modules`."""
    soft = [module for module in modules if isinstance(module, DistillationLoss)]
    if not soft:
        return lambda logits, labels, _: {"loss": hard_loss(logits, labels)}
    temperatures = torch.tensor([module.temperature for module in soft], device=device)
    soft_weights = torch.tensor([module.soft_weight for module in soft], device=device)
    hard_weights = torch.tensor([module.hard_weight for module in soft], device=device)
    match_logits = soft[0].match_logits

    def losses(logits: Tensor, labels: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        assert targets is not None
        loss = logit_matching(logits, targets) if match_logits else soft_loss(logits, targets, temperatures)
        return {"loss_soft": soft_weights * loss, "loss_hard": hard_weights * hard_loss(logits, labels)}

    return losses
