"""Monte Carlo EM, the paper's third method (appendix E): no recognition model; HMC samples the posterior itself.

For each batch: 10 leapfrog steps move the batch's latent variables, with a step size tuned to 90 % acceptance; then 5 updates
of the weights on log p(x, z) with that sample. Every image keeps its latent variables until it is seen again.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.vae import hmc
from paperbench.vae.model import Generative
from paperbench.vae.objectives import Noise, Objective

FIRST_STEP_SIZE = 0.05


class RepeatedOrder(EpochOrder):
    """Every batch of an `EpochOrder`, `times` times in a row: the steps that learn from one sample of the posterior."""

    def __init__(self, length: int, batch_size: int, seed: int, *, times: int) -> None:
        super().__init__(length, batch_size, seed)
        self.times = times

    def _slice(self, step: int, offset: int, count: int) -> BatchKey:
        return replace(super()._slice(step // self.times, offset, count), step=step)


class Mcem(Objective):
    """Called with (images (B, D), their numbers (B,), the step). Chains and step size are buffers: checkpoints hold them.

    images: how many there are, each with a chain that starts at a draw from the prior. updates: weight updates for each
    sample; the chains move in every `updates`-th step.
    """

    def __init__(
        self,
        model: Generative,
        *,
        images: int,
        leapfrog_steps: int,
        updates: int,
        acceptance: float,
        stream: torch.Generator,
    ) -> None:
        super().__init__()
        self.model = model
        self.leapfrog_steps = leapfrog_steps
        self.updates = updates
        self.acceptance = acceptance
        self.register_buffer("chains", torch.randn((images, model.latent), generator=stream, device=stream.device))
        self.register_buffer("step_size", torch.tensor(FIRST_STEP_SIZE))

    chains: Tensor
    step_size: Tensor

    def forward(self, x: tuple[Tensor, Tensor, int], stream: torch.Generator) -> dict[str, Tensor]:  # type: ignore[override]
        images, numbers, step = x
        if step % self.updates == 0:
            self._move(images, numbers, stream)
        return self.computed(images, self.chains[numbers].unsqueeze(0))

    def draw(self, images: int, stream: torch.Generator) -> Noise:
        return ()

    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        (z,) = noise
        return {"loss_joint": -self.model.log_joint(x, z).mean((-2, -1))}

    def _move(self, x: Tensor, numbers: Tensor, stream: torch.Generator) -> None:
        """One transition of the chains of these images, and of the step size."""
        # Energies are differences of large numbers: half precision would decide acceptance by its rounding.
        with torch.autocast(x.device.type, enabled=False):
            density = posterior_density(self.model, x)
            state, probability = hmc.transition(
                density, hmc.at(density, self.chains[numbers]), self.step_size, self.leapfrog_steps, stream
            )
        self.chains[numbers] = state.z
        self.step_size.copy_(hmc.adapted(self.step_size, probability.mean(), target=self.acceptance))


def posterior_density(model: Generative, x: Tensor) -> hmc.LogDensity:
    """log p(z | x) up to a constant, for images x (B, D): z (B, L) -> (B,)."""
    return lambda z: model.log_joint(x, z.unsqueeze(0)).squeeze(0)
