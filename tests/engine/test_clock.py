"""The speed of a training over its sessions, and the time for the next save, on a clock of its own."""

from __future__ import annotations

import pytest
import torch

from paperbench.engine.clock import Clock, SaveTimer


class Hand:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 50.0

    def __call__(self) -> float:
        return self.seconds


def test_the_speed_of_a_resumed_training_is_that_of_all_its_sessions() -> None:
    before, after = Clock(torch.device("cpu")), Clock(torch.device("cpu"))
    before.load({"samples": 300, "seconds": 20.0})
    assert before.rate() == 15
    after.load(before.state())
    assert after.state() == before.state() == {"samples": 300, "seconds": 20.0}
    after.start()
    after.count(100)
    with after.paused():
        pass
    assert after.state()["samples"] == 400
    assert after.rate() == pytest.approx(400 / after.state()["seconds"])
    assert after.state()["seconds"] > 20


def test_a_save_is_due_so_many_seconds_after_the_start_and_after_the_last_one() -> None:
    hand = Hand()
    timer = SaveTimer(120, hand)
    hand.seconds += 1000
    timer.start()
    hand.seconds += 119
    assert not timer.is_due()
    hand.seconds += 1
    assert timer.is_due()
    with timer.saving():
        hand.seconds += 1
    hand.seconds += 119
    assert not timer.is_due()
    hand.seconds += 1
    assert timer.is_due()


def test_slow_saves_take_a_hundredth_of_the_time_at_most() -> None:
    hand = Hand()
    timer = SaveTimer(120, hand)
    with timer.saving():
        hand.seconds += 3
    hand.seconds += 299
    assert not timer.is_due()
    hand.seconds += 1
    assert timer.is_due()


def test_zero_seconds_are_never() -> None:
    hand = Hand()
    timer = SaveTimer(0, hand)
    hand.seconds += 1e9
    assert not timer.is_due()
