"""The end of a command: errors in plain words, the right exit code, and a traceback only with `--debug`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer

from paperbench.errors import EXIT_FAILED, EXIT_INTERRUPTED, ConfigError, PaperbenchError


@contextmanager
def guarded(*, json_output: bool = False, debug: bool = False) -> Iterator[None]:
    """Run the body of a command.

    A `PaperbenchError` is written to stderr as `error: …` and ends with its exit code; any other exception ends with exit code 1.
    With `json_output`, stdout gets `{"error": …, "mistakes": […], "exit_code": …}` as well. A reader that closed the pipe
    (`| head`) ends the command quietly.
    """
    try:
        yield
        sys.stdout.flush()
    except typer.Exit:
        raise
    except BrokenPipeError:
        raise typer.Exit(_silence()) from None
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
        reason = " ".join(str(error).split())
        text = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        hint = "" if debug else " (unexpected error; run again with --debug for the traceback)"
        raise typer.Exit(_report(f"{text}{hint}", [], EXIT_FAILED, json_output)) from None


def _report(text: str, mistakes: list[str], code: int, json_output: bool) -> int:
    lines = mistakes if len(mistakes) > 1 else text.splitlines() or [""]
    with suppress(OSError):
        print_error("error: " + "\n       ".join(lines))
        if json_output:
            emit_json({"error": text, "mistakes": mistakes, "exit_code": code})
    return code


def _silence() -> int:
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
