"""What a specialist trains on (section 5.4): half of every batch shows its classes, half is a random part of all else."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.seeding import hashed

_SPECIAL, _OTHER = 1, 2


class HalvesOrder(EpochOrder):
    """Batches whose first half goes through the special images and whose second half through the others, each by epochs of its
    own.

    special, others: positions in the training set. batch_size: even. Like every order, a pure function of (seed, step).
    """

    def __init__(self, special: NDArray[np.int64], others: NDArray[np.int64], batch_size: int, seed: int) -> None:
        super().__init__(len(special) + len(others), batch_size, seed)
        if batch_size % 2:
            raise ValueError(f"a batch of {batch_size} has no halves")
        self._parts = [
            (special, EpochOrder(len(special), batch_size // 2, hashed(seed, _SPECIAL))),
            (others, EpochOrder(len(others), batch_size // 2, hashed(seed, _OTHER))),
        ]

    def _slice(self, step: int, offset: int, count: int) -> BatchKey:
        keys = [(positions, order.batch(step)) for positions, order in self._parts]
        indices = np.concatenate([positions[key.indices] for positions, key in keys])
        epochs = np.concatenate([key.epochs for _, key in keys])
        return BatchKey(step, indices[offset : offset + count], epochs[offset : offset + count])


def dustbin_correction(special: int, others: int) -> float:
    """What is added to the dustbin's logit after training: the log of the proportion by which special images were oversampled.

    In a batch they are as many as the others; in the data they are special : others.
    """
    return math.log(others / special)
