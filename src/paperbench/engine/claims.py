"""Runs that one process prepares and another one claims, each done exactly once.

A run directory is prepared when its `config.yaml` exists, and a run is done when its `results.json` exists: each is written
last and atomically. A kill between any two instructions leaves a directory that `prepare` completes or `claim` continues.
Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from paperbench.config.validate import config_hash, dump, load_file, task_named, validate
from paperbench.engine.files import TMP_SUFFIX, explain_os_errors, write_atomic
from paperbench.engine.rundir import DONE, WAITING, RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.errors import ConfigError, RunLockedError

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_MAKE = 10.0


def prepare(path: Path, resolved: Mapping[str, Any]) -> None:
    """Create the directory of a run for another process, in state `waiting`; leave one that exists as it is.

    Raises `ConfigError` when `path` holds something else: files that are no run's, or a run of another configuration; and
    `RunLockedError` when another process holds it for long without creating the run.
    """
    with explain_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(path)
    deadline = time.monotonic() + _SECONDS_TO_MAKE
    while not directory.lock.acquire():
        if directory.config_file.is_file():
            break  # the process at work there works on this run
        if time.monotonic() > deadline:
            raise RunLockedError(f"{path} is held by {directory.lock.holder()}, which does not create its run; stop it")
        time.sleep(0.02)  # another process is just creating it
    try:
        if directory.config_file.is_file():
            refuse_other(path, resolved)
            return
        _clear(path)
        # The status first: with its config.yaml a run is prepared, and must not look like one that was killed.
        directory.update_status(state=WAITING, step=0, steps=0, best=None, message="")
        write_atomic(directory.config_file, _as_yaml(resolved))
    finally:
        directory.release()


def refuse_other(path: Path, resolved: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the run in `path` is of a configuration that gives other results than `resolved`."""
    if _is_written(path / "config.yaml", resolved):
        return
    _, _, found = load_file(path / "config.yaml")
    complete = dump(validate(task_named(resolved.get("task")), resolved))
    if config_hash(found) != config_hash(complete):
        raise ConfigError(
            f"{path} holds a run of another configuration than its name says; move the folder away to run this one"
        )


def _is_written(file: Path, resolved: Mapping[str, Any]) -> bool:
    """Return True if the file holds exactly this configuration, which then need not be validated again."""
    try:
        return file.read_text(encoding="utf-8") == _as_yaml(resolved)
    except (OSError, UnicodeDecodeError):
        return False


def _as_yaml(resolved: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True)


def _clear(path: Path) -> None:
    """Remove what a process killed in `prepare` left; refuse any other file."""
    with explain_os_errors(path):
        held = sorted(entry for entry in path.iterdir() if entry.name not in ("lock", "status.json"))
    leftovers = [entry for entry in held if entry.name.startswith(".") and entry.name.endswith(TMP_SUFFIX)]
    foreign = [entry.name for entry in held if entry not in leftovers]
    if foreign:
        raise ConfigError(f"{path} should hold a run but holds {foreign[0]} without a config.yaml; move it away")
    for entry in leftovers:
        with suppress(OSError):
            entry.unlink()


def claim(path: Path, stop: StopFlag) -> RunDirectory | None:
    """Return the run in `path`, held by this process and with work left; None if it is done or a stop was requested meanwhile.

    Waits while another process works there; afterwards the run is done, or continues here.
    """
    directory = RunDirectory.open(path)
    with _release_on_failure(directory):
        while not directory.lock.acquire():
            if stop:
                return None
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        directory.begin_session()
        if confirm_done(directory):
            directory.release()
            return None
    return directory


def confirm_done(directory: RunDirectory) -> bool:
    """Return True if the run is done; write the status of one that was killed after its results. Call it locked."""
    results = directory.results()
    if results is None or results.get("status") != DONE:
        return False
    if directory.status().get("state") != DONE:
        directory.update_status(state=DONE, message="", error="", exit_code=0)
        directory.write_log("done: the results were complete and the status was missing")
    return True


def confirm_done_if_free(path: Path) -> None:
    """`confirm_done` for a run that has results, if no process works there."""
    directory = RunDirectory.open(path)
    if directory.status().get("state") != DONE and directory.lock.acquire():
        try:
            directory.begin_session()
            confirm_done(directory)
        finally:
            directory.release()


@contextmanager
def _release_on_failure(directory: RunDirectory) -> Iterator[None]:
    try:
        yield
    except BaseException:
        directory.release()
        raise
