"""Measurements of a trained model, all in float32, with random streams of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from paperbench.engine.onednn import fast_products
from paperbench.engine.run import Run
from paperbench.engine.seeding import generator
from paperbench.vae.config import BoundForm, VaeTrain
from paperbench.vae.data import Pixels
from paperbench.vae.likelihood import Marginal, estimate_marginal, importance_sampled_likelihood
from paperbench.vae.objectives import AutoEncoder, Mcem, Objective, Variational, bound, posterior_density

BOUND, IMPORTANCE, MARGINAL = 110, 111, 112
"""First keys of the streams that estimates are drawn from; the run's seed and the number of the chunk follow."""

CHUNK = 500
"""Images that are evaluated together."""

T = TypeVar("T")


class Evaluator:
    """Measures `objective` on both splits; called as `engine.trainer.Trainer` calls it. `metrics.METRICS` lists what it returns."""

    def __init__(self, config: VaeTrain, objective: Objective, train: Pixels, test: Pixels, run: Run) -> None:
        self.config = config
        self.objective = objective
        self.train = train
        self.test = test
        self.run = run

    def __call__(self) -> dict[str, float]:
        with torch.no_grad(), _float32(self.run), fast_products(self.run.device):
            return self._bounds("test", self.test, 0) | self._bounds_of_training_set() | self._marginals()

    def training_set(self) -> dict[str, float]:
        """Return what is measured on the training set, but for the estimates of appendix D; empty for Monte Carlo EM."""
        with torch.no_grad(), _float32(self.run), fast_products(self.run.device):
            return self._bounds_of_training_set()

    def _bounds_of_training_set(self) -> dict[str, float]:
        return self._bounds("train", self.train, self.config.evaluation.train_images)

    def _bounds(self, split: str, pixels: Pixels, limit: int) -> dict[str, float]:
        objective = self.objective
        values: dict[str, float] = {}
        if isinstance(objective, AutoEncoder):
            values[f"{split}/squared_error"] = self._mean(pixels, limit, lambda x, _: objective.squared_error(x))
        elif isinstance(objective, Variational):
            values[f"{split}/bound"] = self._mean(pixels, limit, self._bound)
            if self.config.estimator == "aevb" and self.config.bound.form == "importance":
                values[f"{split}/importance_bound"] = self._mean(pixels, limit, self._importance_bound)
        return values

    def likelihood(self) -> dict[str, float]:
        """Return `test/nll`, minus log p(x) by importance sampling in nats, and its standard error `test/nll_error` due to the
        samples of the latent variables. Empty without an encoder, and with `evaluation.importance_samples=0`."""
        settings = self.config.evaluation
        objective = self.objective
        if not isinstance(objective, Variational) or settings.importance_samples == 0:
            return {}
        limit = settings.likelihood_images or len(self.test)
        with torch.no_grad(), _float32(self.run), fast_products(self.run.device):
            parts = self._map_chunks(
                min(limit, len(self.test)),
                lambda start, stop, chunk: importance_sampled_likelihood(
                    objective.model,
                    objective.encoder,
                    self.test.eval_batch(start, stop),
                    samples=settings.importance_samples,
                    stream=self._stream(IMPORTANCE, chunk),
                ),
                phase="importance sampling",
            )
        log_likelihood = torch.cat([part.log_likelihood.cpu() for part in parts]).double()
        errors = torch.cat([part.standard_error.cpu() for part in parts]).double()
        values = {"test/nll": -float(log_likelihood.mean())}
        if settings.importance_samples > 1:
            values["test/nll_error"] = float(errors.square().sum().sqrt() / len(errors))
        return values

    def _marginals(self) -> dict[str, float]:
        objective, images = self.objective, self.config.marginal_images
        if images == 0 or isinstance(objective, AutoEncoder):
            return {}
        assert isinstance(objective, Variational | Mcem)
        values: dict[str, float] = {}
        for number, (split, pixels) in enumerate((("test", self.test), ("train", self.train))):
            parts = self._map_chunks(
                min(images, len(pixels)),
                partial(self._estimate_marginal, objective, pixels, number),
                phase=f"appendix D, {split}",
            )
            values[f"{split}/marginal"] = float(
                torch.cat([part.log_likelihood.cpu() for part in parts]).double().mean()
            )
            if split == "test":
                values["test/hmc_acceptance"] = sum(part.acceptance for part in parts) / len(parts)
        return values

    def _estimate_marginal(
        self, objective: Variational | Mcem, pixels: Pixels, number: int, start: int, stop: int, chunk: int
    ) -> Marginal:
        x = pixels.eval_batch(start, stop)
        stream = self._stream(MARGINAL, number, chunk)
        first = _initial_positions(objective, x, stream)
        density = posterior_density(objective.model, x)
        return estimate_marginal(density, first, self.config.evaluation.marginal, stream)

    def _bound(self, x: Tensor, stream: torch.Generator) -> Tensor:
        return self._bound_of("analytic", x, stream, samples=1)

    def _importance_bound(self, x: Tensor, stream: torch.Generator) -> Tensor:
        return self._bound_of("importance", x, stream, samples=self.config.bound.samples)

    def _bound_of(self, form: BoundForm, x: Tensor, stream: torch.Generator, *, samples: int) -> Tensor:
        objective = self.objective
        assert isinstance(objective, Variational)
        noise = torch.randn((samples, len(x), objective.encoder.latent), generator=stream, device=x.device)
        return bound(form, objective.model, objective.encoder, x, noise)

    def _mean(self, pixels: Pixels, limit: int, measure: Callable[[Tensor, torch.Generator], Tensor]) -> float:
        """Return the mean of `measure`, a value for each image, over the first `limit` images (0: all)."""
        count = min(limit or len(pixels), len(pixels))
        sums = self._map_chunks(
            count,
            lambda start, stop, chunk: (
                measure(pixels.eval_batch(start, stop), self._stream(BOUND, chunk)).cpu().double().sum()
            ),
        )
        return float(torch.stack(list(sums)).sum()) / count

    def _stream(self, *key: int) -> torch.Generator:
        return generator(self.run.device, self.run.seed, *key)

    def _map_chunks(self, count: int, work: Callable[[int, int, int], T], *, phase: str = "") -> Sequence[T]:
        """Return `work(start, stop, chunk)` for every chunk of `count` images, in order; the ranks share the work."""
        ranks = self.run.ranks
        starts = range(0, count, CHUNK)
        mine: dict[int, T] = {}
        for first in range(0, len(starts), ranks.world):
            chunk = first + ranks.rank
            if chunk < len(starts):
                start = starts[chunk]
                mine[chunk] = work(start, min(start + CHUNK, count), chunk)
            if phase:
                self.run.raise_if_stopped()
                self.run.reporter.progress(
                    phase, min(first + ranks.world, len(starts)) * CHUNK, len(starts) * CHUNK, {}
                )
        together: dict[int, T] = {}
        for part in ranks.all_gather(mine) if ranks.world > 1 else [mine]:
            together |= part
        return [together[chunk] for chunk in range(len(starts))]


def _initial_positions(objective: Variational | Mcem, x: Tensor, stream: torch.Generator) -> Tensor:
    """Return the first positions (B, L) of the chains of images x (B, D): the encoder's mean, or a draw from the prior."""
    if isinstance(objective, Variational):
        return objective.encoder.posterior(x).mean
    return torch.randn((len(x), objective.model.latent), generator=stream, device=x.device)


def _float32(run: Run) -> torch.autocast:
    return torch.autocast(run.device.type, enabled=False)
