"""Stacked runs of one architecture: `paperbench sweep vae model.latent=3,5,10,20 --stacked`.

Latent sizes, hidden sizes, learning rates and seeds may differ; with `optim.lr=auto` each run chooses its own rate, before they are
stacked. Each run is built as it would be alone, with its own weights,
order of images and noise; then the nets are stacked (`engine.stacked_layers`) and trained together
(`engine.stacked_trainer`). Narrower nets are padded with zeros, and padding costs time: latent sizes that differ by
more than a power of two above 32 are not stacked.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from paperbench.config.schema import OutputConfig
from paperbench.config.validate import dump
from paperbench.engine.run import Run
from paperbench.engine.stacked_layers import stack
from paperbench.engine.stacked_trainer import Result, fit_stacked
from paperbench.errors import PaperbenchError, Stopped
from paperbench.vae.config import VaeTrain
from paperbench.vae.data import Pixels
from paperbench.vae.objectives import Objective, Variational
from paperbench.vae.training import Training, load_data

_SMALL = 32
"""Latent dimensions up to which padding costs next to nothing, beside 784 pixels and hundreds of hidden units."""


def stack_key(config: VaeTrain) -> Hashable | None:
    """Return everything but what may differ within a stack; None for what cannot be stacked: convolutions, and Monte Carlo EM,
    whose chains are no weights."""
    if config.model.net != "mlp" or config.estimator == "mcem" or config.nproc != 1:
        return None
    free = replace(
        config,
        seed=0,
        output=OutputConfig(),
        optim=replace(config.optim, lr=1.0),
        model=replace(config.model, latent=_bracket(config.model.latent), hidden=_bracket(config.model.hidden)),
    )
    return repr(dump(free))


def _bracket(size: int) -> int:
    """Return the power of two that a size is at most; one value for all small sizes."""
    return max(_SMALL, 1 << (size - 1).bit_length())


def run_stacked(configs: Sequence[VaeTrain], runs: Sequence[Run]) -> list[Result]:
    """Train all runs together, and return the metrics of each or the error that it alone failed with. See `engine.task.Stacks`."""
    train, test = load_data(configs[0], runs[0].device)
    built = [_build(config, run, train, test) for config, run in zip(configs, runs, strict=True)]
    parts = [part for part in built if isinstance(part, Training)]
    results = fit_stacked(
        [part.trainer for part in parts], lambda numbers: StackedObjective([parts[number] for number in numbers])
    )
    finished = iter([_finish(part, result) for part, result in zip(parts, results, strict=True)])
    return [next(finished) if isinstance(part, Training) else part for part in built]


def _build(config: VaeTrain, run: Run, train: Pixels, test: Pixels) -> Training | PaperbenchError:
    """Build a run's training, which chooses its rate alone where the configuration asks for that; a failure is that run's own."""
    try:
        return Training.build(config, run, train, test)
    except Stopped:
        raise
    except PaperbenchError as error:
        run.reporter.message(str(error))
        return error


def _finish(training: Training, result: Result) -> Result:
    if isinstance(result, PaperbenchError):
        return result
    try:
        return training.finish(result)
    except PaperbenchError as error:
        return error


class StackedObjective:
    """The objectives of several runs as one (`engine.stacked_trainer.Joint`)."""

    def __init__(self, parts: Sequence[Training]) -> None:
        self._parts = parts
        self._alone = [part.objective for part in parts]
        self.module: Objective = stack(self._alone)
        self._latents = [part.config.model.latent for part in parts]
        if isinstance(self.module, Variational):
            self.module.model.set_stacked_latents(self._latents)
            self.module.encoder.set_stacked_latents(self._latents)
        self._one_order = len({part.run.seed for part in parts}) == 1
        parts[0].compile(self.module)

    def fetch(self, step: int) -> Tensor:
        """Return (S, B, D), or (B, D) where all models see the same images."""
        parts = self._parts[:1] if self._one_order else self._parts
        batches = [part.trainer.fetch(part.trainer.order.batch(step)) for part in parts]
        return batches[0] if self._one_order else torch.stack(batches)

    def losses(self, batch: Tensor, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        drawn = [
            objective.draw_noise(batch.shape[-2], stream)
            for objective, stream in zip(self._alone, streams, strict=True)
        ]
        return self.module.compute_losses(batch, *(_pad_and_stack(tensors) for tensors in zip(*drawn, strict=True)))


def _pad_and_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack S tensors (..., L) of several L as one (S, ..., largest L), zeros behind the shorter ones."""
    width = max(tensor.shape[-1] for tensor in tensors)
    if all(tensor.shape[-1] == width for tensor in tensors):
        return torch.stack(list(tensors))
    joint = tensors[0].new_zeros((len(tensors), *tensors[0].shape[:-1], width))
    for row, tensor in zip(joint, tensors, strict=True):
        row[..., : tensor.shape[-1]] = tensor
    return joint
