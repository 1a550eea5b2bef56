"""The end of a command: errors in plain words, the right exit code, and a traceback only with `--debug`."""

from __future__ import annotations

import codecs
import errno
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from paperbench.errors import (
    EXIT_ENVIRONMENT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    EnvironmentError_,
    PaperbenchError,
)

_AS_BYTES = "paperbench-as-bytes"
_REMEDIES = {
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EACCES: "see who may read and write it (ls -l)",
    errno.EPERM: "see who may read and write it (ls -l)",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "name a file",
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of the quota",
    errno.EROFS: "name a place that can be written",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ELOOP: "its links lead in a circle",
}


@contextmanager
def guarded(*, json_output: bool = False, debug: bool = False) -> Iterator[None]:
    """Run the body of a command.

    A `PaperbenchError` is written to stderr as `error: …` and ends with its exit code; any other exception ends with exit code 1.
    An error of the system that nobody explained is about a place: it is said, and ends with exit code 4. With `json_output`, stdout
    gets `{"error": …, "mistakes": […], "exit_code": …}` as well. A reader that closed the pipe (`| head`) ends the command quietly.
    """
    tolerate_any_text()
    try:
        _check_current_folder()
        yield
        sys.stdout.flush()
    except typer.Exit:
        raise
    except BrokenPipeError:
        raise typer.Exit(silence()) from None
    except KeyboardInterrupt:
        raise typer.Exit(_report("interrupted", [], EXIT_INTERRUPTED, json_output)) from None
    except PaperbenchError as error:
        if debug:
            traceback.print_exc(file=sys.stderr)
        mistakes = list(error.mistakes) if isinstance(error, ConfigError) else []
        raise typer.Exit(_report(str(error), mistakes, error.exit_code, json_output)) from None
    except Exception as error:
        if debug:
            traceback.print_exc(file=sys.stderr)
        if isinstance(error, OSError) and error.errno is not None:
            raise typer.Exit(_report(_in_words(error), [], EXIT_ENVIRONMENT, json_output)) from None
        if "torch" in sys.modules:
            from paperbench.engine.device_errors import explained

            if (known := explained(error)) is not None:
                raise typer.Exit(_report(str(known), [], known.exit_code, json_output)) from None
        reason = " ".join(str(error).split())
        text = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        hint = "" if debug else " (unexpected error; run again with --debug for the traceback)"
        raise typer.Exit(_report(f"{text}{hint}", [], EXIT_FAILED, json_output)) from None


def _check_current_folder() -> None:
    """Raise `EnvironmentError_` where the current folder was deleted: relative paths mean nothing there."""
    try:
        Path.cwd()
    except OSError as error:
        raise EnvironmentError_(
            f"the current folder cannot be used ({error.strerror}), it was deleted perhaps; change to one that exists (cd FOLDER)"
        ) from error


def _in_words(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "")
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    return f"{place}{reason}" + (f"; {remedy}" if remedy else "")


def tolerate_any_text() -> None:
    """Make stdout and stderr take every text: bytes of a file's name that are no text as they are, the rest escaped."""
    codecs.register_error(_AS_BYTES, _encode_as_bytes)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            with suppress(ValueError, OSError):
                reconfigure(errors=_AS_BYTES)


def _encode_as_bytes(error: UnicodeError) -> tuple[bytes | str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    if all("\udc80" <= letter <= "\udcff" for letter in text):
        return os.fsencode(text), error.end
    return text.encode("ascii", "backslashreplace"), error.end


def open_closed_streams() -> None:
    """Send to nothing what goes to a standard stream that was closed (`>&-`), so that no file takes its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as the process


def _report(text: str, mistakes: list[str], code: int, json_output: bool) -> int:
    lines = mistakes if len(mistakes) > 1 else text.splitlines() or [""]
    with suppress(OSError):
        print_error("error: " + "\n       ".join(lines))
        if json_output:
            emit_json({"error": text, "mistakes": mistakes, "exit_code": code})
    return code


def silence() -> int:
    """Redirect stdout to nothing: otherwise the interpreter complains about the closed pipe while it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAILED


def print_error(text: str) -> None:
    """Write a line for people to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def emit_json(document: Any) -> None:
    """Write the one JSON document of a command to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()
