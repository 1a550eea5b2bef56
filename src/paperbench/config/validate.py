"""A configuration against the schema of its task, and back to plain data. Imports neither Hydra nor torch: workers use it."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from paperbench.catalog import DATASETS, TASKS, TaskSpec, package_of
from paperbench.config.explain import Explainer, Origin, explain, look_up
from paperbench.config.fields import every_key, hints, members, plain, strip, walk
from paperbench.config.former import modernised
from paperbench.config.marks import AbsentByDefault, Formerly, Incidental, mark, marks
from paperbench.config.paths import notices
from paperbench.config.schema import TrainConfig
from paperbench.config.suggest import nearest
from paperbench.errors import ConfigError, DataError

SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads YAML ten times as fast where PyYAML was built with libyaml."""


@lru_cache(maxsize=32)
def schema_of(task: TaskSpec) -> type:
    """Return the dataclass that describes configurations of `task`. Raises `ConfigError` with the package where there is none."""
    module, _, name = task.schema.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"task {task.name} of {package_of(task)}: schema {task.schema} cannot be loaded: {error}"
        ) from error
    if not isinstance(found, type) or not is_dataclass(found):
        raise ConfigError(f"task {task.name} of {package_of(task)}: schema {task.schema} is no dataclass")
    return found


@lru_cache(maxsize=32)
def _adapter(schema: type) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def task_named(name: object) -> TaskSpec:
    """The task of that name, or `ConfigError` with the nearest ones."""
    if isinstance(name, str) and name in TASKS:
        return TASKS[name]
    if not name:
        raise ConfigError(f"task: says no task. Tasks: {', '.join(TASKS)}")
    near = nearest(str(name), TASKS)
    raise ConfigError(f"task: no task {name}. {'Nearest' if near else 'Tasks'}: {', '.join(near or TASKS)}", *notices())


def validate(
    task: TaskSpec,
    mapping: Mapping[str, Any],
    *,
    now: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> Any:
    """The configuration as an instance of the task's schema.

    Raises `ConfigError` naming every mistake in `mapping`: keys that do not exist and values that do not fit. `now` is what
    messages call the present values (default: the schema's own), `origin` knows which override or file set a key.
    """
    schema = schema_of(task)
    explainer = Explainer(task, schema, now or {}, origin or Origin())
    mistakes = _unsupported_data(task, mapping, explainer)
    config = None
    try:
        config = _adapter(schema).validate_python(dict(mapping))
    except ValidationError as error:
        said = {text.partition(":")[0] for text in mistakes}
        mistakes += [text for text in explain(error, explainer, mapping) if text.partition(":")[0] not in said]
    mistakes += _truth_values(schema, mapping, explainer)
    if mistakes:
        raise ConfigError(*mistakes)
    return config


def _unsupported_data(task: TaskSpec, mapping: Mapping[str, Any], explainer: Explainer) -> list[str]:
    """A data set that exists, for another task."""
    name = look_up(mapping, "data.name")
    if "data" not in hints(explainer.schema) or name not in DATASETS or task.name in DATASETS[name].tasks:
        return []
    able = [spec.name for spec in DATASETS.values() if task.name in spec.tasks]
    return [
        f"data.name: task {task.name} cannot use {name}{explainer.origin.of('data.name')}."
        f" It takes {', '.join(able) or 'no data set'}"
    ]


def _truth_values(schema: type, mapping: Mapping[str, Any], explainer: Explainer) -> list[str]:
    """`seed=true`: Python, and so pydantic, takes it for 1."""
    mistakes = []
    for key, known in walk(schema, mapping):
        value = look_up(mapping, key)
        types = {strip(member)[0] for member in members(known.annotation)}
        if isinstance(value, bool) and types & {int, float} and bool not in types:
            mistakes.append(explainer.wrong(key, value, known.annotation))
        items = get_args(strip(known.annotation)[0])
        if (
            isinstance(value, list | tuple)
            and any(isinstance(item, bool) for item in value)
            and items
            and strip(items[0])[0] is not bool
        ):
            mistakes.append(explainer.wrong(key, value, known.annotation))
    return mistakes


def dump(config: Any) -> dict[str, Any]:
    """The complete configuration as plain data for YAML and JSON, without keys marked `ABSENT_BY_DEFAULT` that have their default;
    `validate` takes it back unchanged."""
    mapping = plain(config)
    for key, known in list(walk(type(config), mapping)):
        if mark(known.annotation, AbsentByDefault) is not None and look_up(mapping, key) == known.default:
            section, _, name = key.rpartition(".")
            del (look_up(mapping, section) if section else mapping)[name]
    return mapping


def load_file(path: Path) -> tuple[TaskSpec, Any, dict[str, Any]]:
    """Task, configuration and its plain form, from the `config.yaml` of a run, also of one that an earlier version made.

    Raises `DataError` if the file is absent or not YAML, `ConfigError` if this version of the program cannot run what it says.
    """
    mapping = _read(path)
    origin = Origin(file=lambda key: str(path))
    try:
        task = task_named(mapping.get("task"))
    except ConfigError as error:
        raise ConfigError(*(f"{path}: {text}" for text in error.mistakes)) from None
    config = validate(task, modernised(schema_of(task), mapping), origin=origin)
    return task, config, dump(config)


def identity(path: Path) -> str:
    """`config_hash` of a run, of its `config.yaml` as it stands: the one that its checkpoints and folder were made with, also by a
    version of the program that had other keys. Raises as `load_file`."""
    return config_hash(_read(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        mapping = yaml.load(path.read_text(encoding="utf-8"), Loader=SafeLoader)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. A run directory holds its configuration there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number or date that is none
        raise DataError(f"{path}: damaged, not YAML: {one_line(error)}") from None
    if not isinstance(mapping, dict):
        raise DataError(f"{path}: damaged, expected keys and values but found {type(mapping).__name__}")
    return mapping


def one_line(error: Exception) -> str:
    """The text of an exception without its line breaks."""
    return " ".join(str(error).split())


def config_hash(resolved: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the results of a run: canonical JSON of the configuration without the keys marked `NO_EFFECT`."""
    task = TASKS.get(str(resolved.get("task")))
    relevant = deepcopy(dict(resolved))
    for key in _unhashed(schema_of(task) if task else TrainConfig):
        _remove(relevant, key.split("."))
    text = json.dumps(relevant, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _remove(section: Any, names: Sequence[str]) -> None:
    """Takes a dotted key away, and every section that is empty without it."""
    if not isinstance(section, dict) or names[0] not in section:
        return
    if len(names) > 1:
        _remove(section[names[0]], names[1:])
    if len(names) == 1 or section[names[0]] == {}:
        del section[names[0]]


@lru_cache(maxsize=64)
def _unhashed(schema: type) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for key, annotation in every_key(schema):
        known = mark(annotation, Incidental)
        if known is not None and not known.hashed:
            section = key.rpartition(".")[0]
            former = [name for item in marks(annotation, Formerly) for name in item.names]
            found |= dict.fromkeys([key, *(f"{section}.{name}".lstrip(".") for name in former)])
    return tuple(found)


def incidental(key: str, *, hashed: bool = True) -> bool:
    """Whether a key, or every key of a section, changes nothing that is measured, in whatever task has it.

    With `hashed=False`: whether it changes no result at all, and so is left out of the hash of a run.
    """
    keys = _keys_of_all_tasks()
    names = key.split(".")
    around = [known for end in range(1, len(names) + 1) if (known := keys.get(".".join(names[:end])))]
    marks = [
        item
        for known in around or (known for name, known in keys.items() if name.startswith(f"{key}."))
        for item in known
    ]
    return bool(marks) and all(item is not None and (hashed or not item.hashed) for item in marks)


@lru_cache(maxsize=1)
def _keys_of_all_tasks() -> dict[str, set[Incidental | None]]:
    keys: dict[str, set[Incidental | None]] = {}
    for task in TASKS.values():
        for key, annotation in every_key(schema_of(task)):
            keys.setdefault(key, set()).add(mark(annotation, Incidental))
    return keys
