"""A command in a process of its own, which a library may end at any moment; its parent says what it no longer can.

Ray's C++ code ends the process that joined a cluster when its node is gone: at once, past every handler of Python.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

import typer

from paperbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, PaperbenchError

_FORWARDED: Final = [number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")]
_SHOW_CURSOR: Final = "\x1b[?25h"
_LOG_LINE: Final = re.compile(r"^\[[^\]]* [EFC] [^\]]*\] +(?:\([^)]*\) +)?(?:\S+:\d+: +)?(?P<text>.+)$")
"""Of Ray: `[2026-11-30 19:20:01,123 E 4711 4712] (gcs_server) file.cc:90: what went wrong`."""
_MOST_LETTERS: Final = 240

_noted: IO[str] | None = None
"""In such a process, the pipe to its parent."""


class LibraryExitError(PaperbenchError):
    """The process ended without a word of its own. `noted` are the texts that it noted before, `said` what the library wrote."""

    def __init__(self, noted: tuple[str, ...], said: str) -> None:
        super().__init__(said)
        self.noted = noted
        self.said = said


def note(text: str) -> None:
    """Tell the parent something for the case that this process is ended; without a parent, do nothing."""
    if _noted is not None:
        _noted.write(f"note {text}\n")
        _noted.flush()


@contextmanager
def apart() -> Iterator[None]:
    """Run the body in a process of its own; this one waits, and ends the command with the exit code of that one.

    Signals are passed on. What the libraries of the body write to stderr is kept back. If this process is killed, so is that of
    the body. In this process, entering raises `typer.Exit` when the other has ended, or `LibraryExitError` if it left no exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with tempfile.TemporaryFile() as libraries:
        reports, report = os.pipe()
        alive, keep_alive = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until it is known whom to pass them to
        child = os.fork()
        if child:
            os.close(report)
            os.close(alive)
            raise _ending(child, reports, libraries, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reports)
        os.close(keep_alive)
        _become_the_child(alive, report, libraries.fileno())
    assert _noted is not None
    code = EXIT_FAILED
    try:
        yield
        code = EXIT_DONE
    except typer.Exit as ended:
        code = ended.exit_code
        raise
    except PaperbenchError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        raise
    finally:
        _noted.write(f"code {code}\n")
        _noted.flush()


def _become_the_child(alive: int, report: int, libraries: int) -> None:
    global _noted
    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on: twice would mean to kill the runs
    shown = os.dup(2)
    os.dup2(libraries, 2)
    encoding, errors = sys.stderr.encoding, sys.stderr.errors
    sys.stderr = os.fdopen(shown, "w", buffering=1, encoding=encoding, errors=errors)
    _noted = os.fdopen(report, "w", encoding="utf-8", errors="surrogateescape")
    threading.Thread(target=_die_with_the_parent, args=(alive,), daemon=True).start()


def _die_with_the_parent(alive: int) -> None:
    with suppress(OSError):
        os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _ending(child: int, reports: int, libraries: IO[bytes], mask: Iterable[int]) -> BaseException:
    """Wait for the end of the process, passing signals on, and return what to raise. `mask` is that of the command."""

    def forward(number: int, frame: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with os.fdopen(reports, encoding="utf-8", errors="surrogateescape") as pipe:
        found = [line.rstrip("\n").partition(" ") for line in pipe]
    codes = [int(text) for kind, _, text in found if kind == "code"]
    if codes:
        own = os.waitstatus_to_exitcode(status)
        return typer.Exit(own if own >= 0 else codes[-1])  # its leave-taking from the library may be what killed it
    if sys.stdout.isatty():
        sys.stdout.write(_SHOW_CURSOR)  # which a live table had hidden
    libraries.seek(0)
    text = libraries.read().decode(errors="replace")
    return LibraryExitError(tuple(text for kind, _, text in found if kind == "note"), _essence(text))


def _essence(text: str) -> str:
    """Return the first error that Ray logged, else the last line that is no part of a stack, cut where it is long."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    logged = [found["text"] for line in lines if (found := _LOG_LINE.match(line))]
    others = [line for line in lines if "[0x" not in line and not line.startswith(("***", "@"))]
    said = (logged[:1] or others[-1:] or [""])[0]
    return said if len(said) <= _MOST_LETTERS else f"{said[:_MOST_LETTERS]}…"
