"""The transfer set: training images that a student learns from, without omitted classes and validation images, or a fraction."""

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
class TransferSplit:
    """Positions in the training set, (n,) int64 in ascending order.

    transfer: images of the distilled student. validation: images that no student learns from. rest: all but `validation`.
    """

    transfer: Tensor
    validation: Tensor
    rest: Tensor


def split_training_set(
    labels: Tensor, classes: Sequence[str], transfer: TransferConfig, validation: ValidationConfig
) -> TransferSplit:
    """Split the training set. labels: (N,) on any device; the result is on the same.

    Raises ConfigError for an empty transfer set.
    """
    host = labels.cpu()
    held_out = _sample(host, validation.fraction, hashed(validation.seed, _VALIDATION))
    seen = ~held_out
    selected = selected_classes(transfer, classes)
    if selected:
        of_selected = torch.isin(host, torch.tensor(selected))
        seen &= of_selected if transfer.only else ~of_selected
    if transfer.fraction < 1:
        rest = seen.nonzero().squeeze(1)
        seen = torch.zeros_like(seen)
        seen[rest] = _sample(host[rest], transfer.fraction, hashed(transfer.seed, _FRACTION))
    if not bool(seen.any()):
        raise ConfigError(
            f"transfer: no training image is left for the student (of {len(host)}); omit fewer classes or take a larger fraction"
        )

    def positions(mask: Tensor) -> Tensor:
        return mask.nonzero().squeeze(1).to(labels.device)

    return TransferSplit(positions(seen), positions(held_out), positions(~held_out))


def selected_classes(transfer: TransferConfig, classes: Sequence[str]) -> tuple[int, ...]:
    """Return the positions of the classes that `omit` or `only` name.

    Raises ConfigError for unknown names and for both keys at once.
    """
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
    selected = tuple(sorted({classes.index(name) for name in transfer.only or transfer.omit}))
    if len(selected) == len(classes):
        outcome = "see everything; leave it out" if transfer.only else "see no image"
        raise ConfigError(f"transfer.{key}: names every class; the student would {outcome}")
    return selected


def _sample(labels: Tensor, fraction: float, key: int) -> Tensor:
    """Return (N,) bool: a fraction of the images of every class, rounded, at least one of each if `fraction` > 0."""
    mask = torch.zeros(len(labels), dtype=torch.bool)
    if fraction == 0:
        return mask
    order = torch.from_numpy(np.argsort(np.random.Philox(key=key).random_raw(len(labels)), kind="stable"))
    for number in labels.unique().tolist():
        of_class = order[labels[order] == number]
        mask[of_class[: max(1, round(fraction * len(of_class)))]] = True
    return mask
