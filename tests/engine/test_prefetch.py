"""Batches made ahead in a thread."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from paperbench.engine.prefetch import Prefetcher

CPU = torch.device("cpu")


def prefetch_threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_everything_in_order(depth: int) -> None:
    with Prefetcher(lambda step: step * 10, 2, 7, depth=depth, device=CPU) as batches:
        assert list(batches) == [20, 30, 40, 50, 60]
    assert prefetch_threads() == 0


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_never_more_than_depth_ahead(depth: int) -> None:
    made = threading.Semaphore(0)
    count = 0

    def produce(step: int) -> int:
        nonlocal count
        count += 1
        made.release()
        return step

    with Prefetcher(produce, 0, 100, depth=depth, device=CPU) as batches:
        for taken, _ in enumerate(batches, 1):
            for _ in range(depth + taken - count):
                assert made.acquire(timeout=5)
            assert count <= taken + depth
            if taken == 10:
                break
    assert count <= 10 + depth
    assert prefetch_threads() == 0


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_comes_in_its_turn_with_its_traceback(depth: int) -> None:
    def produce(step: int) -> int:
        if step == 3:
            raise KeyError("the fourth")
        return step

    seen: list[int] = []

    def consume() -> None:
        with Prefetcher(produce, 0, 9, depth=depth, device=CPU) as batches:
            seen.extend(iter(batches))

    with pytest.raises(KeyError) as caught:
        consume()
    assert seen == [0, 1, 2]
    assert any(entry.name == "produce" for entry in caught.traceback)


@pytest.mark.parametrize("depth", [0, 2])
def test_no_gradients_are_recorded(depth: int) -> None:
    weight = torch.ones(2, requires_grad=True)
    with Prefetcher(lambda step: weight * step, 0, 3, depth=depth, device=CPU) as batches:
        assert not any(value.requires_grad for value in batches)


@pytest.mark.parametrize("depth", [0, 2])
def test_nothing_is_made_while_something_is_measured(depth: int) -> None:
    making = threading.Event()

    def produce(step: int) -> int:
        making.set()
        time.sleep(0.01)
        making.clear()
        return step

    with Prefetcher(produce, 0, 20, depth=depth, device=CPU) as batches:
        for _ in batches:
            with batches.quiet():
                assert not making.is_set()
                time.sleep(0.005)
                assert not making.is_set()
