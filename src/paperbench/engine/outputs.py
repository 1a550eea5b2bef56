"""Places that a user names for what a command writes: nothing that is no output of that command is ever replaced.

Every option that names a file or folder to write goes through `output_file` or `output_folder`, before the work starts. No torch
here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from paperbench.config.paths import refuse_reserved, short
from paperbench.errors import ConfigError, EnvironmentError_

OPTION = "--output"
MARK = "Software"
"""Keyword of the text in a PNG that says which program wrote it."""
_HEAD = 4096
RUN_FOLDERS = ("checkpoints", "figures")
"""Folders that every run writes, there or not."""
RUN_OUTPUTS = (("report",), ("export",), ("figures", "predictions"))
"""Folders within a run that commands write by default."""


def output_file(
    path: Path, *, what: str, is_ours: Callable[[Path], bool], inputs: Iterable[Path] = (), option: str = OPTION
) -> Path:
    """Return the file to write for `path`; a link that leads to an earlier output stands for that.

    what: the kind of output in words, "an export". is_ours: True for a regular file that this kind of command wrote, which alone
    may be replaced. inputs: what the command reads. option: how the place was named, for messages. Raises `ConfigError` for a
    special file (a pipe, a device), an input under whatever name, every file of somebody else, and a place in a folder that a run
    writes, and `EnvironmentError_` for a folder and for a place that cannot be.
    """
    named = f"{option} {short(path)}"
    refuse_reserved(path, named)
    refuse_run_folder(path.parent, named, is_ours=lambda other: other.suffix == path.suffix and is_ours(other))
    state = _state(path, named)
    if state is None:
        if path.is_symlink():
            raise ConfigError(f"{named}: is a link to nothing; name a file, or remove the link")
        _check_parents(path.parent, option)
        return path
    if stat.S_ISDIR(state.st_mode):
        raise EnvironmentError_(f"{named}: is a folder; name a file in it")
    if not stat.S_ISREG(state.st_mode):
        raise ConfigError(f"{named}: is {_kind(state)}, no file; name a file that does not exist yet")
    for source in inputs:
        if _is_same(source, state):
            raise ConfigError(f"{named}: is the input {short(source)}, which would be lost; name another place")
    if not is_ours(path):
        raise ConfigError(f"{named}: exists and is not {what}; name another place, or move that file away")
    return path.resolve() if path.is_symlink() else path


def output_folder(path: Path, *, option: str = OPTION) -> Path:
    """Return the folder, which need not exist.

    Raises `ConfigError` where it is something else, and `EnvironmentError_` where what should hold it is no folder.
    """
    refuse_reserved(path, f"{option} {short(path)}")
    state = _state(path, f"{option} {short(path)}")
    if state is None:
        _check_parents(path, option)
    elif not stat.S_ISDIR(state.st_mode):
        raise ConfigError(f"{option} {short(path)}: is {_kind(state)}, no folder; name another place")
    return path


def refuse_run_folder(folder: Path, named: str, *, is_ours: Callable[[Path], bool] = lambda path: False) -> None:
    """Raise `ConfigError` for `folder` within a folder that a run writes, such as its checkpoints; the run's own top is none.

    Folders of outputs (`RUN_OUTPUTS`), and one that an earlier output alone has made, are free. named: how the place was named.
    is_ours: True for an earlier output.
    """
    folder = Path(os.path.realpath(folder))
    run = next((place for place in (folder, *folder.parents) if _is_run(place)), None)
    if run is None or folder == run:
        return
    parts = folder.relative_to(run).parts
    if any(parts[: len(free)] == free for free in RUN_OUTPUTS):
        return
    top = run / parts[0]
    if parts[0] in RUN_FOLDERS or (_held(top) and not any(map(is_ours, _held(folder)))):
        raise ConfigError(f"{named}: lies in {short(top)}, which the run {short(run)} writes; name another place")


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "status.json").is_file()


def _held(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it cannot be looked into, which the writing will say."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _check_parents(path: Path, option: str) -> None:
    """Raise `EnvironmentError_` where nothing can be made at `path`, since something above it is no folder."""
    for place in (path, *path.parents):
        state = _state(place, f"{option} {short(path)}")
        if state is None and place.is_symlink():
            raise EnvironmentError_(
                f"cannot write {short(path)}: {short(place)} is a link to nothing; name another place with {option}"
            )
        if state is not None:
            if not stat.S_ISDIR(state.st_mode):
                raise EnvironmentError_(
                    f"cannot write {short(path)}: {short(place)} is {_kind(state)}, no folder; name another place with {option}"
                )
            return


def is_marked(path: Path, software: str) -> bool:
    """Return True for a PNG whose text `Software` says that this program, in this role, wrote it."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head.startswith(b"\x89PNG\r\n\x1a\n") and f"tEXt{MARK}\0{software}".encode() in head


def _state(path: Path, named: str) -> os.stat_result | None:
    """None where nothing is, or only a link that leads nowhere."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):  # of the latter, the folder says it
        return None
    except OSError as error:
        raise EnvironmentError_(f"{named}: {error.strerror or error}; name another place") from error


def _kind(state: os.stat_result) -> str:
    kinds = (
        (stat.S_ISREG, "a file"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for is_kind, name in kinds if is_kind(state.st_mode)), "a special file")


def _is_same(source: Path, state: os.stat_result) -> bool:
    try:
        return os.path.samestat(source.stat(), state)
    except OSError:
        return False
