"""Which samples a step sees."""

from __future__ import annotations

import numpy as np
import pytest

from paperbench.engine.order import EpochOrder
from paperbench.errors import ConfigError, DataError


@pytest.mark.parametrize(("length", "batch_size"), [(12, 4), (10, 4), (3, 8), (1, 1), (7, 7), (5, 1)])
def test_every_epoch_sees_every_sample_once(length: int, batch_size: int) -> None:
    order = EpochOrder(length, batch_size, seed=1)
    steps = 3 * length  # a whole number of epochs, whatever the batch
    batches = [order.batch(step) for step in range(steps)]
    stream = np.concatenate([batch.indices for batch in batches])
    epochs = np.concatenate([batch.epochs for batch in batches])
    assert (epochs == np.arange(len(stream)) // length).all()
    for epoch in range(epochs.max() + 1):
        assert sorted(stream[epochs == epoch]) == list(range(length))


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    forwards = EpochOrder(50, 8, seed=4)
    backwards = EpochOrder(50, 8, seed=4)
    expected = [forwards.batch(step).indices for step in range(40)]
    for step in reversed(range(40)):
        assert (backwards.batch(step).indices == expected[step]).all()
    other = EpochOrder(50, 8, seed=5)
    assert any((other.batch(step).indices != expected[step]).any() for step in range(3))
    first, second = (np.concatenate([forwards.batch(k).indices for k in range(at, at + 25)])[:50] for at in (0, 25))
    assert (first != second).any(), "another epoch, another order"


def test_the_order_is_the_one_it_was_when_this_test_was_written() -> None:
    """A run that is resumed under another version of NumPy must see the same samples."""
    assert EpochOrder(10, 10, seed=0).batch(0).indices.tolist() == [2, 8, 4, 1, 9, 6, 0, 7, 3, 5]


def test_all_samples_are_as_likely_at_every_place() -> None:
    places = np.zeros((6, 6))
    for seed in range(600):
        places[np.arange(6), EpochOrder(6, 6, seed).batch(0).indices] += 1
    assert places.min() > 60
    assert places.max() < 140


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_a_batch_without_changing_it(world: int) -> None:
    alone = EpochOrder(20, 6, seed=2)
    for step in range(8):
        shares = [EpochOrder(20, 6, 2, rank, world).batch(step) for rank in range(world)]
        assert all(len(share.indices) == 6 // world for share in shares)
        assert np.concatenate([share.indices for share in shares]).tolist() == alone.batch(step).indices.tolist()
        assert np.concatenate([share.epochs for share in shares]).tolist() == alone.batch(step).epochs.tolist()
        assert (
            EpochOrder(20, 6, 2, world - 1, world).whole_batch(step).indices.tolist()
            == alone.batch(step).indices.tolist()
        )


def test_types_and_refusals() -> None:
    batch = EpochOrder(5, 2, seed=0).batch(3)
    assert (batch.step, batch.indices.dtype, batch.epochs.dtype) == (3, np.int64, np.int64)
    with pytest.raises(DataError, match="the training set is empty"):
        EpochOrder(0, 2, seed=0)
    with pytest.raises(ConfigError, match=r"train\.batch_size=5 cannot be shared by 2 processes"):
        EpochOrder(9, 5, 0, 0, 2)
    with pytest.raises(ValueError, match="rank 2"):
        EpochOrder(9, 4, 0, 2, 2)
    with pytest.raises(ValueError, match="count from 0"):
        EpochOrder(9, 4, 0).batch(-1)
