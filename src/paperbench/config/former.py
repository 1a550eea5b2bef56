"""Keys by the names they had in earlier versions: `Formerly` marks on the fields of schemas, read. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paperbench.config.fields import hints, section_of
from paperbench.config.marks import Formerly, mark


def modernised(schema: type, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping`, written by an earlier version, with today's keys and values; all else, unknown keys too, stays as it is."""
    fields = hints(schema)
    names = {old: name for name, annotation in fields.items() for old in _former(annotation)}
    result: dict[str, Any] = {}
    for key, value in mapping.items():
        name = key if key in fields else names.get(key, key)
        if name != key and name in mapping:
            name = key  # both are there: the old one is a mistake, for validation to find
        annotation = fields.get(name)
        section = section_of(annotation, value) if annotation is not None else None
        if section is not None and isinstance(value, Mapping):
            result[name] = modernised(section, value)
        else:
            result[name] = _value(annotation, value)
    return result


def todays_key(schema: type, mapping: Mapping[str, Any], key: str) -> str | None:
    """The dotted key that was called `key` in an earlier version, itself or a section around it; None if there is none."""
    section: type | None = schema
    value: Any = mapping
    names: list[str] = []
    for step in key.split("."):
        if section is None:
            return None
        fields = hints(section)
        name = step if step in fields else next((n for n, a in fields.items() if step in _former(a)), None)
        if name is None:
            return None
        names.append(name)
        value = value.get(name) if isinstance(value, Mapping) else None
        section = section_of(fields[name], value)
    found = ".".join(names)
    return found if found != key else None


def _former(annotation: Any) -> tuple[str, ...]:
    found = mark(annotation, Formerly)
    return found.names if found is not None else ()


def _value(annotation: Any, value: Any) -> Any:
    found = mark(annotation, Formerly) if annotation is not None else None
    known = found.values if found is not None else ()
    return next((new for old, new in known if type(old) is type(value) and old == value), value)
