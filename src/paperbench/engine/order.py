"""The samples of a step: a pure function of (seed, epoch, index), so a resume needs no state of a loader."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from paperbench.engine.seeding import ORDER, hashed
from paperbench.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class BatchKey:
    """One rank's share of the batch of a step.

    step: counts from 0. indices: (n,) int64 into the data set. epochs: (n,) int64, the pass over the data that each sample
    belongs to; a batch may reach from one epoch into the next.
    """

    step: int
    indices: NDArray[np.int64]
    epochs: NDArray[np.int64]


class EpochOrder:
    """The endless sequence of batches of a training run.

    Every epoch is a permutation of all samples; the permutations are laid end to end and batch k is positions
    [k * batch_size, (k + 1) * batch_size). Each of `world` ranks takes a contiguous share of every batch, so the samples of
    a step do not depend on the number of ranks.

    Raises `DataError` for an empty data set and `ConfigError` when the batch cannot be shared evenly.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if length < 1:
            raise DataError("there is nothing to train on: the training set is empty; check data.root and the split")
        if batch_size < 1 or batch_size % world:
            raise ConfigError(
                f"train.batch_size={batch_size} cannot be shared by {world} processes; make it a multiple of nproc={world}"
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not in 0..{world - 1}")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self._permutation = lru_cache(maxsize=4)(self._shuffled)

    @property
    def share(self) -> int:
        """Samples of a batch that this rank works on."""
        return self.batch_size // self.world

    def batch(self, step: int) -> BatchKey:
        """This rank's share of batch `step`."""
        return self._slice(step, self.rank * self.share, self.share)

    def whole_batch(self, step: int) -> BatchKey:
        """Batch `step` of all ranks together, in the order of the ranks."""
        return self._slice(step, 0, self.batch_size)

    def _slice(self, step: int, offset: int, count: int) -> BatchKey:
        if step < 0:
            raise ValueError(f"steps count from 0, not {step}")
        first = step * self.batch_size + offset
        epoch, place = divmod(first, self.length)
        if place + count <= self.length:  # nearly every batch lies within one epoch: no more than a slice then
            indices = self._permutation(epoch)[place : place + count].copy()
            return BatchKey(step, indices, np.full(count, epoch, dtype=np.int64))
        positions = np.arange(first, first + count, dtype=np.int64)
        epochs, places = np.divmod(positions, self.length)
        indices = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            of_epoch = epochs == epoch
            indices[of_epoch] = self._permutation(int(epoch))[places[of_epoch]]
        return BatchKey(step, indices, epochs)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        # Sorting raw bits instead of calling `permutation`: NumPy guarantees the stream of a bit generator for ever, but not
        # that of its methods, and a resume under a newer NumPy must see the same order.
        bits = np.random.Philox(key=hashed(self.seed, ORDER, epoch)).random_raw(self.length)
        return np.argsort(bits, kind="stable").astype(np.int64)
