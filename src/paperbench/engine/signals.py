"""Requests to stop: a flag that the trainer reads between two steps."""

from __future__ import annotations

import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from paperbench.engine.processes import ON_WINDOWS, catchable, watch_stdin
from paperbench.errors import EXIT_INTERRUPTED

HANDLED = catchable("SIGTERM", "SIGINT", "SIGUSR1", "SIGBREAK")
"""SIGBREAK is Ctrl-Break, which Windows has in place of the others."""

ENV_LAST_STEP = "PAPERBENCH_LAST_STEP"
"""Environment variable with the step after which a training is to stop, as if it were asked to; it can be resumed."""


_LOST_LAUNCHER = "loss of the launcher"


class SignalHandlers(ABC):
    """Hands the signals of `HANDLED` to `_handle` while the context is open; afterwards the handlers are those of before.

    Outside the main thread no signals arrive and none are handled.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    @abstractmethod
    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, in the main thread between two instructions: set flags, wait for nothing."""


class StopFlag(SignalHandlers):
    """Set by the signals of `HANDLED` while the context is open; a second SIGINT ends the process at once.

    With `watch_parent`, the death of the parent process sets it as well: a worker whose launcher was killed must not
    train on unattended. On Windows its launcher holds the other end of stdin for that. `on_abort` is called before the
    process is ended, to put the terminal right.
    """

    def __init__(self, *, watch_parent: bool = False, on_abort: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.reason = ""
        """Name of the signal, or `loss of the launcher`; empty while not set."""
        self.last_step = int(os.environ.get(ENV_LAST_STEP) or 0)
        """Step after which a longer training saves and stops; 0: none. The processes of a run inherit it."""
        self._interrupts = 0
        self._parent = os.getppid() if watch_parent and not ON_WINDOWS else None
        if watch_parent and ON_WINDOWS:
            watch_stdin(lambda: self.set(_LOST_LAUNCHER))
        self._at_abort = [on_abort] if on_abort is not None else []

    def at_abort(self, action: Callable[[], None]) -> None:
        """Register an action for the end of the process by a second SIGINT; the last one registered runs first."""
        self._at_abort.insert(0, action)

    def __bool__(self) -> bool:
        if self._parent is not None and not self.reason and os.getppid() != self._parent:
            self.reason = _LOST_LAUNCHER
        return bool(self.reason)

    def set(self, reason: str) -> None:
        """Ask for a stop from inside the program."""
        self.reason = self.reason or reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self._abort()
        self.set(signal.Signals(number).name)

    def _abort(self) -> None:
        # os._exit: after a second Ctrl-C nobody wants to wait for threads, files or other processes.
        for action in self._at_abort:
            with suppress(Exception):
                action()
        with suppress(Exception):
            sys.stderr.write("interrupted; the last checkpoint is intact\n")
            sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)
