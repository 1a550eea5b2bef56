"""Where configurations lie: the folder shipped with the program, and the user's own before it.

A user's folder adds experiments (or any other group) and shadows shipped files of the same name. Nothing here imports Hydra.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperbench.config.fields import walk
from paperbench.config.marks import AsWritten, DataRoot, OrName, PathMark, mark
from paperbench.errors import ConfigError

GROUPS = ("experiment", "data", "model", "optim", "scale", "recipe", "schedule", "reproduce", "launcher")
"""Folders that make a folder of configurations one of ours."""

DATA_ROOT_VARIABLE = "PAPERBENCH_DATA"


def shipped_conf() -> Path:
    """The configurations of this installation: inside the package, or beside `src/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def is_conf(folder: Path) -> bool:
    """Whether `folder` holds one of our groups; another program's `./conf` does not."""
    return any((folder / group).is_dir() for group in GROUPS)


def search_path(conf_dir: Path | None = None, *, cwd: Path | None = None) -> tuple[Path, ...]:
    """Folders to look for configurations in, the user's first.

    The user's is `conf_dir` if given (`ConfigError` if it holds none of our groups), else `./conf` if it looks like ours.
    """
    shipped = shipped_conf()
    if conf_dir is not None:
        own = conf_dir.expanduser().resolve()
        if not own.is_dir():
            raise ConfigError(f"--conf-dir {conf_dir}: no such folder")
        if not is_conf(own):
            raise ConfigError(f"--conf-dir {conf_dir}: holds none of the folders {', '.join(GROUPS)}")
    else:
        own = ((cwd or Path.cwd()) / "conf").resolve()
        if not is_conf(own):
            return (shipped,)
    return (shipped,) if own == shipped else (own, shipped)


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


def data_root() -> Path:
    """Where data sets are looked for unless `data.root` says otherwise: `$PAPERBENCH_DATA`, else `./data`; absolute."""
    return Path(os.environ.get(DATA_ROOT_VARIABLE) or "data").expanduser().absolute()


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
        return str(Path(value).expanduser()) if value.startswith("~") else value
    path = Path(value).expanduser().absolute()
    return value if mark(annotation, OrName) and not path.exists() else str(path)
