"""Hamiltonian Monte Carlo over many chains at once (appendix E: leapfrog steps, step size tuned to 90 % acceptance).

A density is a function from positions (B, L) to log densities (B,), up to a constant; each row is a chain of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]

JITTER = 0.3
"""Largest share by which the step size of a transition differs from the tuned one."""

ADAPTATION_RATE = 0.05
"""Growth of the log of the step size after a transition that is certain to be accepted."""


@dataclass(frozen=True)
class State:
    """The state of the chains: position (B, L), log density (B,) and its gradient (B, L)."""

    z: Tensor
    log_density: Tensor
    gradient: Tensor


def evaluate(log_density: LogDensity, z: Tensor) -> State:
    """Return the state of chains at positions z (B, L)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_density(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return State(z.detach(), value.detach(), gradient)


def leapfrog(
    log_density: LogDensity, state: State, momentum: Tensor, step_size: Tensor | float, steps: int
) -> tuple[State, Tensor]:
    """Follow Hamilton's equations with unit mass, and return the new state and momentum (B, L). Reversible and volume-preserving.

    step_size: a number, or one for each chain (B, 1).
    """
    for _ in range(steps):
        momentum = momentum + 0.5 * step_size * state.gradient
        state = evaluate(log_density, state.z + step_size * momentum)
        momentum = momentum + 0.5 * step_size * state.gradient
    return state, momentum


def transition(
    log_density: LogDensity, state: State, step_size: Tensor | float, steps: int, stream: torch.Generator
) -> tuple[State, Tensor]:
    """Make one step of every chain, which leaves exp(log_density) invariant. Return the new state and the probabilities (B,) with
    which the proposals were accepted. A proposal whose energy is not finite is rejected.

    Each chain's step size is shortened or lengthened by up to `JITTER`, drawn anew. A trajectory of always the same length can
    be a whole period of the motion, which ends where it began: the chain would not move and always be accepted.
    """
    momentum = torch.randn(state.z.shape, generator=stream, device=stream.device)
    jitter = torch.rand((len(momentum), 1), generator=stream, device=stream.device)
    proposed, end = leapfrog(log_density, state, momentum, step_size * (1 + JITTER * (2 * jitter - 1)), steps)
    change = proposed.log_density - state.log_density + 0.5 * (momentum.square() - end.square()).sum(-1)
    probability = torch.nan_to_num(change, nan=-torch.inf).clamp(max=0).exp()
    accepted = torch.rand(len(probability), generator=stream, device=stream.device) < probability
    row = accepted[:, None]
    new = State(
        torch.where(row, proposed.z, state.z),
        torch.where(accepted, proposed.log_density, state.log_density),
        torch.where(row, proposed.gradient, state.gradient),
    )
    return new, probability


def adapt_step_size(step_size: Tensor, acceptance: Tensor, *, target: float, rate: float = ADAPTATION_RATE) -> Tensor:
    """Return the step size after a transition that was accepted with probability `acceptance`: longer above `target`, else shorter.

    Both tensors have the same shape: () for one step size, (B, 1) for one a chain. The log of the step size moves by `rate` for
    an acceptance of 1, and by as much more for one of 0 as keeps it where `target` is the mean.
    """
    return step_size * (rate * (acceptance - target) / (1 - target)).exp()
