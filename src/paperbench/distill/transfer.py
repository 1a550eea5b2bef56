"""Which training images a student sees: all, without some classes, a share of them, without those held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paperbench.config.suggest import nearest
from paperbench.distill.config import TransferConfig, ValidationConfig
from paperbench.engine.seeding import hashed
from paperbench.errors import ConfigError

_FRACTION, _VALIDATION = 1, 2


@dataclass(frozen=True)
class Division:
    """Positions in the training set, (n,) int64 in ascending order.

    transfer: what the distilled student sees. validation: what is held back from students. rest: all but `validation`.
    """

    transfer: Tensor
    validation: Tensor
    rest: Tensor


def divide(labels: Tensor, classes: Sequence[str], transfer: TransferConfig, validation: ValidationConfig) -> Division:
    """labels: (N,) on any device; the result is on the same. Raises ConfigError when the student would see nothing."""
    host = labels.cpu()
    held = _share(host, validation.fraction, hashed(validation.seed, _VALIDATION))
    seen = ~held
    affected = chosen_classes(transfer, classes)
    if affected:
        special = torch.isin(host, torch.tensor(affected))
        seen &= special if transfer.only else ~special
    if transfer.fraction < 1:
        rest = seen.nonzero().squeeze(1)
        seen = torch.zeros_like(seen)
        seen[rest] = _share(host[rest], transfer.fraction, hashed(transfer.seed, _FRACTION))
    if not bool(seen.any()):
        raise ConfigError(
            f"transfer: no training image is left for the student (of {len(host)}); omit fewer classes or take a larger fraction"
        )

    def positions(mask: Tensor) -> Tensor:
        return mask.nonzero().squeeze(1).to(labels.device)

    return Division(positions(seen), positions(held), positions(~held))


def chosen_classes(transfer: TransferConfig, classes: Sequence[str]) -> tuple[int, ...]:
    """Positions of the classes that `omit` or `only` name. Raises ConfigError for names that are none and for both at once."""
    if transfer.omit and transfer.only:
        raise ConfigError(
            f"transfer.omit={list(transfer.omit)} and transfer.only={list(transfer.only)}: give one of them"
        )
    key = "only" if transfer.only else "omit"
    mistakes = []
    for name in transfer.only or transfer.omit:
        if name not in classes:
            near = nearest(name, classes) or list(classes)
            mistakes.append(f"transfer.{key}: no class {name}. Nearest: {', '.join(near[:5])}")
    if mistakes:
        raise ConfigError(*mistakes)
    chosen = tuple(sorted({classes.index(name) for name in transfer.only or transfer.omit}))
    if len(chosen) == len(classes):
        outcome = "see everything; leave it out" if transfer.only else "see no image"
        raise ConfigError(f"transfer.{key}: names every class; the student would {outcome}")
    return chosen


def _share(labels: Tensor, fraction: float, key: int) -> Tensor:
    """(N,) bool: of every class that fraction of its images, rounded, at least one of each if `fraction` > 0."""
    mask = torch.zeros(len(labels), dtype=torch.bool)
    if fraction == 0:
        return mask
    bits = torch.from_numpy(np.argsort(np.random.Philox(key=key).random_raw(len(labels)), kind="stable"))
    for number in labels.unique().tolist():
        of_class = bits[labels[bits] == number]
        mask[of_class[: max(1, round(fraction * len(of_class)))]] = True
    return mask
