"""Checks that stop a run before an optimizer step would write NaN or infinity into the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from paperbench.engine.order import EpochOrder
from paperbench.engine.ranks import Ranks
from paperbench.errors import TrainingError


@dataclass(frozen=True)
class NotFinite:
    """A step whose losses or gradient were not finite on some rank: its number and this rank's values."""

    step: int
    losses: dict[str, float]
    grad_norm: float


class ImmediateCheck:
    """Looks at the values in every step: right on a CPU, where looking costs nothing."""

    def allows(self, losses: dict[str, torch.Tensor], norm: torch.Tensor) -> bool:
        """Return True if the losses and the norm of the gradient of this rank are finite."""
        values = (*losses.values(), norm)
        if norm.device.type == "cpu":
            return all(math.isfinite(value.item()) for value in values)
        # Elsewhere every look waits for the device: one for all of them.
        return bool(torch.isfinite(torch.stack([value.detach().float() for value in values])).all())


class DeferredCheck:
    """Leaves the answer on the device and lets the optimizer's kernel act on it, so that a step never waits for the GPU.

    From the first step that is not finite on, `found_inf` is 1 and fused optimizers leave weights and state alone;
    `first_bad` reads the flag, which waits for the GPU, and is therefore asked only when numbers are read anyway.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, ranks: Ranks) -> None:
        self._ranks = ranks
        self._found = torch.zeros((), device=device)
        self._one = torch.ones((), device=device)
        self._left_out = torch.zeros((), device=device)
        """Steps since the first that was not finite, and that one."""
        self._watched: list[tuple[int, tuple[str, ...], torch.Tensor]] = []
        """Number, names and values of each step since the flag was read: small tensors, which stay where they are."""
        optimizer.found_inf = self._found  # type: ignore[attr-defined]  # what GradScaler sets for fused optimizers

    def watch(self, step: int, names: tuple[str, ...], values: torch.Tensor) -> None:
        """Take in the losses and, last, the norm of the gradient of a step, (names + 1,) float32, before its optimizer step.

        Two kernels. The first is GradScaler's: it sets the flag where a value is not finite, and leaves it alone elsewhere.
        """
        torch._amp_foreach_non_finite_check_and_unscale_([values], self._found, self._one)
        self._ranks.max_(self._found)
        self._left_out += self._found
        self._watched.append((step, names, values))

    def first_bad(self) -> NotFinite | None:
        """The first step that was not finite, or None. Waits for the device."""
        left_out = int(self._left_out.item())
        if left_out == 0:
            self._watched.clear()
            return None
        step, names, values = self._watched[-left_out]
        *losses, norm = values.tolist()
        return NotFinite(step, dict(zip(names, losses, strict=True)), norm)


def not_finite_error(found: NotFinite, order: EpochOrder, ranks: Ranks) -> TrainingError:
    """The error that names the step, the values and the samples. All ranks must call it together."""
    key = order.batch(found.step)
    values = [f"{name}={value}" for name, value in found.losses.items() if not math.isfinite(value)]
    gathered = ranks.all_gather((values, found.grad_norm, key.indices.tolist()))
    # A gradient is shared by all ranks and a loss is not: where a loss is at fault, only its rank's samples are.
    culprits = [(rank, part) for rank, part in enumerate(gathered) if part[0]] or list(enumerate(gathered))
    where = "; ".join(
        f"{f'rank {rank}: ' if ranks.world > 1 else ''}{', '.join(part[0]) or f'norm of the gradient={part[1]}'}, "
        f"samples {part[2]}"
        for rank, part in culprits
    )
    return TrainingError(
        f"not finite at step {found.step} (epoch {int(key.epochs[0])}): {where}. Stopped before the optimizer step, "
        "the last checkpoint is intact; lower optim.lr, set train.clip_norm, take precision=float32, or look at these samples"
    )
