"""The flag that asks a run to stop."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from paperbench.engine.signals import StopFlag


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_set_it_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopFlag() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.reason == number.name
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == number.name, "the first reason stays"
    assert signal.getsignal(number) is before


def test_another_thread_handles_no_signals_and_can_still_be_told() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with StopFlag() as stop:
            seen.append(signal.getsignal(signal.SIGTERM))
            stop.set("a test")
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, True]


def test_the_second_interrupt_puts_the_terminal_right_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(BaseException):
        pass

    def leave(code: int) -> None:
        raise Left(code)

    closed: list[bool] = []
    monkeypatch.setattr(os, "_exit", leave)
    with StopFlag(on_abort=lambda: closed.append(True)):
        os.kill(os.getpid(), signal.SIGINT)
        assert not closed
        with pytest.raises(Left) as caught:
            os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.args == (130,)
    assert closed == [True]


def test_loss_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    watching, careless = StopFlag(watch_parent=True), StopFlag()
    assert not watching
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert watching
    assert watching.reason == "loss of the launcher"
    assert not careless
