"""Randomness as a function of its key."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from paperbench.engine.seeding import generator, hashed, on_host, seed_everything, seed_step


def draws(*key: int) -> list[float]:
    return torch.rand(4, generator=generator("cpu", *key)).tolist()


def test_equal_keys_draw_equal_numbers_and_others_do_not() -> None:
    assert draws(1, 2, 3) == draws(1, 2, 3)
    keys = [(1, 2, 3), (1, 2, 4), (2, 1, 3), (1, 23), (12, 3), (0, 1, 2, 3), (1, 2, 3, 0)]
    assert len({tuple(draws(*key)) for key in keys}) == len(keys)


def test_a_generator_leaves_the_global_one_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generator("cpu", 1, 2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("key", [(0,), (2**63 + 5,), (10**30, -1)], ids=str)
def test_keys_of_any_size(key: tuple[int, ...]) -> None:
    assert 0 <= hashed(*key) < 2**63
    assert draws(*key) == draws(*key)


@pytest.mark.parametrize("seed", [seed_everything, partial(seed_step, torch.device("cpu"))], ids=["all", "step"])
def test_everything_is_seeded(seed: Callable[..., None]) -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.rand()), random.random()

    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        seed(7, 1)
        first = draw()
        seed(7, 1)
        assert draw() == first
        seed(7, 2)
        assert all(a != b for a, b in zip(draw(), first, strict=True))
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def test_a_stream_of_the_host_is_itself() -> None:
    stream = generator("cpu", 3)
    assert on_host(stream) is stream
    assert on_host(None) is None
