"""Other processes: one that can be asked to save, asking it, ending it, and noticing the death of the one that started this.

Windows has no signals between processes. What a program there can answer is Ctrl-Break, which is sent to a group of processes;
every other signal that is sent ends the process at once. A process's parent does not change when it dies, and in a virtual
environment it is a launcher between the two. Imports no torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paperbench.errors import EnvironmentError_

ON_WINDOWS = sys.platform == "win32"
WSL = "Linux, macOS, or WSL 2 on Windows"


def require_posix(what: str, *, instead: str) -> None:
    """Raise `EnvironmentError_` on Windows. what: the option as typed; instead: what does the same there."""
    if ON_WINDOWS:
        raise EnvironmentError_(f"{what}: needs {WSL}; {instead}")


def catchable(*names: str) -> tuple[signal.Signals, ...]:
    """Return the signals of these names that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def group_options() -> dict[str, Any]:
    """Return the options of `subprocess.Popen` for a process that Ctrl-C at the terminal does not reach, and `ask_to_save` does."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def ask_to_save(pid: int) -> None:
    """Send SIGTERM, or Ctrl-Break on Windows, to a process started with `group_options`; do nothing if it has ended."""
    with suppress(OSError):
        os.kill(pid, signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM)


def end(pid: int) -> None:
    """End a process started with `group_options` at once, and what it started in its session; do nothing if it has ended."""
    if sys.platform == "win32":
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)  # nothing is sent: Windows ends the process
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has ended, or does not lead its session yet
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def watch_stdin(on_end: Callable[[], None]) -> None:
    """Call `on_end`, in a thread, when the process that holds the other end of stdin closes it or dies."""

    def wait() -> None:
        with suppress(OSError, ValueError):
            while os.read(0, 1024):
                pass
        on_end()

    threading.Thread(target=wait, name="launcher-watch", daemon=True).start()
