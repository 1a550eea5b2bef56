"""Where configurations lie: the user's own folder, those of installed packages, and the one shipped with the program.

A user's folder adds experiments (or any other group) and shadows shipped files of the same name. Nothing here imports Hydra.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from paperbench.catalog import notices as catalog_notices
from paperbench.catalog import packages
from paperbench.config.fields import walk
from paperbench.config.marks import AsWritten, DataRoot, OrName, PathMark, mark
from paperbench.errors import ConfigError

GROUPS = ("experiment", "data", "model", "optim", "scale", "preset", "reproduce", "launcher")
"""Folders that make a folder of configurations one of ours."""

DATA_ROOT_VARIABLE = "PAPERBENCH_DATA"


_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*[<>:\"|?*].*|.*[. ]", re.IGNORECASE)
"""Names of devices, signs that no name may hold, and ends that are dropped."""


def refuse_reserved(path: Path, named: str) -> None:
    """Raise `ConfigError` for a place to write that Windows cannot hold under its name; elsewhere every name will do.

    named: how the place was named, for the message.
    """
    if sys.platform != "win32":
        return
    parts = path.parts[1:] if path.anchor else path.parts
    for part in parts:
        if part not in (".", "..") and _RESERVED_ON_WINDOWS.fullmatch(part):
            raise ConfigError(f"{named}: Windows cannot hold a file or folder of the name {part}; choose another")


def shipped_conf() -> Path:
    """The configurations of this installation: inside the package, or beside `src/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def shipped_results() -> Path:
    """The reproductions that travel with this installation; there need be none."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "results"
    return installed if installed.is_dir() else package.parents[1] / "results"


@cache
def _of_packages() -> tuple[dict[str, Path], tuple[str, ...]]:
    """Folders of configurations by installed package, and notices of those that are left out."""
    shipped = shipped_conf()
    folders: dict[str, Path] = {}
    left_out: list[str] = []
    for item in packages():
        folder = item.conf
        if folder is None:
            continue
        what = f"configurations of package {item.package.name} ({folder})"
        files = {file.relative_to(folder) for file in folder.rglob("*.yaml")}
        taken = [
            f"{file.as_posix()} is {name}'s"
            for name, other in {"paperbench": shipped, **folders}.items()
            for file in sorted(files)
            if (other / file).is_file()
        ]
        if taken:
            left_out.append(f"{what} are left out, they have names that are taken: {', '.join(taken)}")
        elif not (is_conf(folder) or (folder / "paper").is_dir()):
            left_out.append(
                f"{what} are left out, there is no folder that holds one of {', '.join((*GROUPS, 'paper'))}"
            )
        else:
            folders[item.package.name] = folder
    return folders, tuple(left_out)


def installed_confs() -> tuple[Path, ...]:
    """Folders of configurations that came with an installation: those of installed packages, then the program's own."""
    return (*_of_packages()[0].values(), shipped_conf())


def notices() -> tuple[str, ...]:
    """What is wrong with installed packages, or with their configurations, a sentence for each that is left out."""
    return (*catalog_notices(), *_of_packages()[1])


def is_conf(folder: Path) -> bool:
    """Whether `folder` holds one of our groups; another program's `./conf` does not."""
    return any((folder / group).is_dir() for group in GROUPS)


def search_path(conf_dir: Path | None = None, *, cwd: Path | None = None) -> tuple[Path, ...]:
    """Folders to look for configurations in: the user's, those of installed packages, the program's.

    The user's is `conf_dir` if given (`ConfigError` if it holds none of our groups), else `./conf` if it looks like ours.
    """
    installed = installed_confs()
    if conf_dir is not None:
        own = expanded(conf_dir).resolve()
        if not own.is_dir():
            raise ConfigError(f"--conf-dir {conf_dir}: no such folder")
        if not is_conf(own):
            raise ConfigError(f"--conf-dir {conf_dir}: holds none of the folders {', '.join(GROUPS)}")
    else:
        own = ((cwd or Path.cwd()) / "conf").resolve()
        if not is_conf(own):
            return installed
    for former in ("recipe", "schedule"):
        if (own / former).is_dir():
            raise ConfigError(
                f"{short(own / former)}: was renamed. schedule/NAME/SCALE.yaml is preset/NAME/SCALE.yaml, and "
                "schedule/data/NAME/SCALE-DATA.yaml is preset/NAME/SCALE-data-DATA.yaml (the same for model); an experiment says "
                "`preset: NAME`"
            )
    return installed if own in installed else (own, *installed)


def options(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """What can be chosen for `group`, sorted by name, with the file that is used for it."""
    found: dict[str, Path] = {}
    for folder in folders:
        base = folder / group
        for file in base.rglob("*.yaml"):
            found.setdefault(file.relative_to(base).with_suffix("").as_posix(), file)
    return dict(sorted(found.items()))


def find(config_path: str, folders: Sequence[Path]) -> Path | None:
    """The file that `config_path`, such as `data/voc`, is read from."""
    candidates = (folder / f"{config_path}.yaml" for folder in folders)
    return next((file for file in candidates if file.is_file()), None)


def short(path: Path) -> str:
    """`path` as a message should name it: relative to the current folder when it lies below it."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def expanded(path: str | Path) -> Path:
    """Return a path that a user gave, a leading `~` or `~NAME` read as a home folder.

    What is no user's is a name where such a file is there. Otherwise it raises ConfigError: a folder `~name` would be made, and
    searched in vain.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        name = Path(path).parts[0]
        if os.path.lexists(name):
            return Path(path)
        reason = "the home folder is not known" if name == "~" else f"no user is called {name[1:]}"
        raise ConfigError(f"{path}: {reason}; write ./{name} for a file or folder of that name") from None


def data_root() -> Path:
    """Where data sets are looked for unless `data.root` says otherwise: `$PAPERBENCH_DATA`, else `./data`; absolute."""
    return expanded(os.environ.get(DATA_ROOT_VARIABLE) or "data").absolute()


def settle_paths(schema: type, mapping: dict[str, Any]) -> None:
    """Makes the paths of a configuration absolute and fills an empty `data.root`, in place.

    Paths are the keys of `schema` that bear a `PathMark`. One that may also be a name is touched only if such a file exists.
    """
    for key, known in walk(schema, mapping):
        if mark(known.annotation, PathMark) is None:
            continue
        *parents, last = key.split(".")
        section: Any = mapping
        for name in parents:
            section = section.get(name) if isinstance(section, Mapping) else None
        if not isinstance(section, dict) or last not in section:
            continue
        value = section[last]
        if value is None and mark(known.annotation, DataRoot):
            section[last] = str(data_root())
        elif isinstance(value, str):
            section[last] = _settled(value, known.annotation)
        elif isinstance(value, list | tuple):
            section[last] = [_settled(item, known.annotation) if isinstance(item, str) else item for item in value]


def _settled(value: str, annotation: Any) -> str:
    if not value:
        return value
    if mark(annotation, AsWritten):
        return str(expanded(value)) if value.startswith("~") else value
    path = expanded(value).absolute()
    return value if mark(annotation, OrName) and not path.exists() else str(path)
