"""Settings of a launcher: `conf/launcher/<name>.yaml`, then `launcher.KEY=VALUE`, checked against the launcher's schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from paperbench.catalog import TaskSpec
from paperbench.config import _hydra, unique_keys
from paperbench.config.explain import Explainer, Origin, explain
from paperbench.config.fields import defaults
from paperbench.config.paths import find, short
from paperbench.config.schema import Schema
from paperbench.config.sources import line_of
from paperbench.config.validate import one_line
from paperbench.errors import ConfigError
from paperbench.sweeps.launchers.base import launcher_class

SECTION = "launcher"


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of the launcher, and the others."""
    own = [text for text in overrides if text.lstrip("+~").startswith((f"{SECTION}.", f"{SECTION}="))]
    return own, [text for text in overrides if text not in own]


def setting_key(text: str) -> str:
    """Return the key that an override of the launcher sets: `launcher.threads` for `+launcher.threads=2`."""
    return text.partition("=")[0].lstrip("+~")


def compose_settings(name: str, overrides: Sequence[str], folders: Sequence[Path]) -> Any:
    """Return the settings of the launcher `name`, an instance of its class's `Settings`.

    `folders` is the search path of configurations (`config.paths.search_path`). Raises `ConfigError` with every
    mistake in the file and in `overrides`.
    """
    schema = launcher_class(name).Settings
    file = find(f"{SECTION}/{name}", folders)
    values = _from_file(file) if file is not None else {}
    mistakes: list[str] = []
    given: dict[str, str] = {}
    for text in overrides:
        try:
            key, value = _read(text)
        except ConfigError as error:
            mistakes.extend(error.mistakes)
            continue
        if f"{SECTION}.{key}" in given:
            mistakes.append(f"{SECTION}.{key}: given twice, as {given[f'{SECTION}.{key}']} and as {text}")
        given[f"{SECTION}.{key}"] = text
        _put(values, key.split("."), value)
    whole = make_dataclass("_Launcher", [(SECTION, schema)], bases=(Schema,))
    spec = TaskSpec(name=f"{SECTION} {name}", verb="sweep", summary="", schema="", module="")
    origin = Origin(given=given, file=lambda key: _line(file, key))
    explainer = Explainer(spec, whole, {SECTION: defaults(schema)}, origin)
    mapping = {SECTION: values}
    try:
        config = TypeAdapter(whole).validate_python(mapping)
    except ValidationError as error:
        mistakes.extend(explain(error, explainer, mapping))
    if mistakes:
        raise ConfigError(*mistakes)
    return config.launcher  # type: ignore[possibly-unbound]


def _from_file(file: Path) -> dict[str, Any]:
    try:
        values = unique_keys.load_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{short(file)}: cannot be read: {one_line(error)}") from None
    if not isinstance(values, dict | None):
        raise ConfigError(f"{short(file)}: expected keys and values")
    return values or {}


def _line(file: Path | None, key: str) -> str | None:
    if file is None:
        return None
    line = line_of(file, key.removeprefix(f"{SECTION}."))
    return f"{short(file)}:{line}" if line else None


def _read(text: str) -> tuple[str, Any]:
    """Return the key below `launcher`, and the value."""
    override = _hydra.parse(text)
    if override.key == SECTION:
        raise ConfigError(f"{text}: the launcher is chosen with --launcher; its settings are {SECTION}.KEY=VALUE")
    if override.sweeps:
        raise ConfigError(f"{text}: a sweep has one launcher; give one value")
    if override.deletes:
        raise ConfigError(f"{text}: a setting cannot be deleted; give it a value, {override.key}=VALUE")
    return override.key.removeprefix(f"{SECTION}."), override.value


def _put(values: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set a dotted key; a value in its way is replaced, for validation to judge."""
    for name in names[:-1]:
        inner = values.get(name)
        values[name] = inner = inner if isinstance(inner, dict) else {}
        values = inner
    values[names[-1]] = value
