"""A schema seen from outside: which keys it has, their defaults, and what values they take, in words.

Schemas are dataclasses whose fields are values, other dataclasses, or a union of dataclasses told apart by one of their
fields (`Field(discriminator="name")`). Nothing here validates; pydantic does.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Key:
    """A key with a value: the annotation of its field and the schema's default (None if there is none)."""

    annotation: Any
    default: Any


@dataclass(frozen=True)
class Variants:
    """A section that is one of several: the key that tells them apart, and the class for each of its values."""

    discriminator: str
    classes: Mapping[str, type]


@lru_cache(maxsize=256)
def hints(schema: type) -> dict[str, Any]:
    """Annotations of a dataclass by field, in order, constraints included."""
    known = get_type_hints(schema, include_extras=True)
    return {field.name: known[field.name] for field in fields(schema)}


def members(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself."""
    bare = strip(annotation)[0]
    return list(get_args(bare)) if get_origin(bare) in (Union, types.UnionType) else [annotation]


def strip(annotation: Any) -> tuple[Any, list[Any]]:
    """The bare type, and all constraints around it (those inside a pydantic `Field` unpacked)."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    bare, *around = get_args(annotation)
    constraints: list[Any] = []
    for item in around:
        constraints.append(item)
        constraints.extend(getattr(item, "metadata", ()))
    return bare, constraints


def union_of(annotation: Any) -> Variants | None:
    """The discriminated union that `annotation` is, if it is one."""
    discriminator = next((d for item in strip(annotation)[1] if (d := getattr(item, "discriminator", None))), None)
    if not isinstance(discriminator, str):
        return None
    variants = {}
    for member in members(annotation):
        for tag in get_args(strip(hints(member)[discriminator])[0]):
            variants[tag] = member
    return Variants(discriminator, variants)


def section_of(annotation: Any, value: Any) -> type | None:
    """The dataclass that describes `value` under this annotation; None for a plain value or an unknown variant."""
    if union := union_of(annotation):
        tag = value.get(union.discriminator) if isinstance(value, Mapping) else None
        return union.classes.get(tag) if isinstance(tag, str) else None
    return next(
        (m for m in (strip(m)[0] for m in members(annotation)) if isinstance(m, type) and is_dataclass(m)), None
    )


def defaults(schema: type) -> dict[str, Any]:
    """The schema's own values, sections as nested dicts and tuples as lists."""
    result: dict[str, Any] = {}
    for field in fields(schema):
        if field.default is not MISSING:
            result[field.name] = plain(field.default)
        elif field.default_factory is not MISSING:
            result[field.name] = plain(field.default_factory())
    return result


def plain(value: Any) -> Any:
    """`value` with dataclasses as dicts and tuples as lists: what YAML and JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def complete(schema: type, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` over the schema's defaults, level by level. Unknown keys stay, for validation to find."""
    annotations = hints(schema)
    result = defaults(schema)
    for key, value in mapping.items():
        section = section_of(annotations[key], value) if key in annotations else None
        result[key] = complete(section, value) if section and isinstance(value, Mapping) else deepcopy(value)
    return result


def walk(schema: type, mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Every key that takes a value, dotted, given the variants that `mapping` chooses (defaults where it chooses none)."""
    known = defaults(schema)
    for name, annotation in hints(schema).items():
        value = mapping.get(name, known.get(name))
        section = section_of(annotation, value)
        if section is not None and isinstance(value, Mapping):
            yield from walk(section, value, f"{prefix}{name}.")
        elif section is None and union_of(annotation):
            continue
        else:
            yield f"{prefix}{name}", Key(annotation, known.get(name))


def every_key(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that takes a value, dotted, with its annotation, of all variants of every section. A key that several variants
    have comes once for each."""
    for name, annotation in hints(schema).items():
        if union := union_of(annotation):
            sections = list(dict.fromkeys(union.classes.values()))
        else:
            section = section_of(annotation, None)
            sections = [section] if section is not None else []
        for section in sections:
            yield from every_key(section, f"{prefix}{name}.")
        if not sections:
            yield f"{prefix}{name}", annotation


def describe(annotation: Any) -> str:
    """What a key takes, in words: `a number above 0`, `one of auto, float32, bfloat16`."""
    bare, constraints = strip(annotation)
    spoken = next((text for item in constraints if (text := getattr(item, "description", None))), None)
    if spoken:
        return str(spoken)
    if len(parts := members(annotation)) > 1:
        return " or ".join("null" if part is type(None) else describe(part) for part in parts)
    origin = get_origin(bare)
    if origin is Literal:
        choices = get_args(bare)
        return f"one of {', '.join(map(str, choices))}" if len(choices) > 1 else "".join(map(str, choices))
    if origin in (tuple, list):
        items = get_args(bare)
        if (len(items) == 2 and items[1] is Ellipsis) or origin is list:
            return f"a list like [a,b], each {describe(items[0])}"
        return f"a list of {len(items)}, each {describe(items[0])}"
    if isinstance(bare, type) and is_dataclass(bare):
        return f"a section with the keys {', '.join(hints(bare))}"
    if origin is dict:
        return "keys and values"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(bare, str(bare))
    return words + _range(constraints)


def _range(constraints: list[Any]) -> str:
    limits = {
        name: v
        for item in constraints
        for name in ("gt", "ge", "lt", "le")
        if (v := getattr(item, name, None)) is not None
    }
    pattern = next((p for item in constraints if (p := getattr(item, "pattern", None))), None)
    if pattern:
        return f" that matches {pattern}"
    if limits.keys() == {"ge", "le"}:
        return f" from {limits['ge']} to {limits['le']}"
    spoken = {"gt": "above {}", "ge": "of {} or more", "lt": "below {}", "le": "of {} or less"}
    said = " and ".join(spoken[name].format(limit) for name, limit in limits.items())
    return f" {said}" if said else ""
