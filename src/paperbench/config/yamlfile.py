"""A YAML file of one form: read into a dataclass, or every mistake in it with its line, what is expected, and near names.

For files of data (`conf/paper`, `conf/reproduce`). Configurations, which are composed of several files, are `compose`'s.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from paperbench.config.explain import mismatch, nearest_choices, show
from paperbench.config.fields import describe, hints, members, strip
from paperbench.config.paths import short
from paperbench.config.suggest import nearest
from paperbench.config.validate import one_line
from paperbench.errors import ConfigError

Schema = TypeVar("Schema")
Step = str | int

# The C one, where PyYAML was built with it, is ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(file: Path, schema: type[Schema]) -> Schema:
    """Return the content of `file` as an instance of the dataclass `schema`.

    Raises `ConfigError` with one message a mistake: `FILE:LINE: KEY: …`. Entries of lists carry the text of their first field:
    `rows.2 (Fast R-CNN).values`.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_LOADER)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{short(file)}: cannot be read: {one_line(error)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{short(file)}: not valid YAML: {one_line(error)}") from None
    try:
        return cast("Schema", _adapter(schema).validate_python(content))
    except ValidationError as error:
        root = yaml.compose(text, Loader=_LOADER)
        mistakes = explain_file(error, schema, content)
        raise ConfigError(*(f"{short(file)}:{_line(root, steps)}: {words}" for steps, words in mistakes)) from None


@lru_cache(maxsize=16)
def _adapter(schema: type) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A place in a file: the steps to it, its name, its value, and its annotation (None where the schema has no such key).

    `keys` are the keys that are allowed around it.
    """

    steps: tuple[Step, ...]
    name: str
    value: Any
    annotation: Any
    keys: tuple[str, ...] = ()


def explain_file(error: ValidationError, schema: type, content: Any) -> list[tuple[tuple[Step, ...], str]]:
    """Return the steps to each wrong place, and what is wrong there in words. Members of a union count as one place."""
    words: dict[tuple[Step, ...], str] = {}
    for detail in error.errors(include_url=False):
        place = _locate(schema, content, detail)
        words.setdefault(place.steps, f"{place.name}: {_explain(detail, place)}")
    # Of a union, the members that do not fit complain of the whole value, the one that was meant of the place in it.
    return [(steps, text) for steps, text in words.items() if not _has_deeper(steps, words)]


def _has_deeper(steps: tuple[Step, ...], others: Iterable[tuple[Step, ...]]) -> bool:
    return any(len(other) > len(steps) and other[: len(steps)] == steps for other in others)


def _explain(detail: ErrorDetails, place: _Place) -> str:
    if detail["type"] == "missing":
        return f"is missing. Expected {describe(place.annotation)}"
    if place.annotation is None:
        near = nearest(str(place.steps[-1]), place.keys)
        return f"no such key. {'Nearest' if near else 'Keys there'}: {', '.join(near or place.keys)}"
    if detail["loc"][-1:] == ("[key]",):
        return _explain_key(place)
    if detail["type"] in ("too_short", "string_too_short"):
        return f"is empty. Expected {'text' if place.value == '' else 'at least one entry'}"
    if isinstance(place.value, Mapping | list):
        given = "keys and values" if isinstance(place.value, Mapping) else "a list"
        return f"expected {describe(place.annotation)}, given {given}"
    near = nearest_choices(place.value, place.annotation)
    return mismatch(place.value, place.annotation) + (f". Nearest: {', '.join(near)}" if near else "")


def _explain_key(place: _Place) -> str:
    """Return what is wrong with a key whose annotation is `place.annotation`."""
    if strip(place.annotation)[0] is str:
        return f'names are text: write "{place.steps[-1]}" in quotes'
    near = nearest_choices(place.steps[-1], place.annotation)
    return f"expected {describe(place.annotation)}, given {show(place.steps[-1])}" + (
        f". Nearest: {', '.join(near)}" if near else ""
    )


def _locate(schema: type, content: Any, detail: ErrorDetails) -> _Place:
    """Follow pydantic's location through the file. Steps that the file does not have, such as members of unions, are skipped."""
    steps: list[Step] = []
    names: list[str] = []
    value, annotation = content, cast("Any", schema)
    keys: tuple[str, ...] = ()
    location = detail["loc"]
    for index, step in enumerate(location):
        absent = detail["type"] == "missing" and index == len(location) - 1
        if isinstance(value, Mapping) and (step in value or absent):
            if step_is_last_key := location[index + 1 :] == ("[key]",):
                inner = _key_annotation(annotation)
            else:
                inner, keys = _inside(annotation, step), tuple(_keys(annotation))
            value = None if step_is_last_key else value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            inner, value = _inside(annotation, step), value[step]
        else:
            if isinstance(value, list) and step in get_args(strip(_key_annotation(annotation))[0]):
                annotation = _inside(annotation, step)  # a list that stands for keys and values, such as `all: [...]`
            continue
        annotation = inner
        steps.append(step)
        title = _title(value, annotation) if isinstance(step, int) else ""
        names.append(f"{step} ({title})" if title else str(step))
    return _Place(steps=tuple(steps), name=".".join(names) or "the file", value=value, annotation=annotation, keys=keys)


def _title(value: Any, annotation: Any) -> str:
    """Return the text of an entry's first field, by which a reader finds it; empty where it has none."""
    first = next(_keys(annotation), None)
    title = value.get(first) if isinstance(value, Mapping) else None
    return textwrap.shorten(title, 40, placeholder="…") if isinstance(title, str) else ""


def _inside(annotation: Any, step: Step) -> Any:
    """Return the annotation of what lies at `step` within a value of `annotation`; None where nothing can."""
    for member in members(annotation):
        bare = strip(member)[0]
        origin, items = get_origin(bare), get_args(bare)
        if isinstance(bare, type) and is_dataclass(bare) and step in hints(bare):
            return hints(bare)[str(step)]
        if (origin is list and isinstance(step, int)) or (origin is dict and len(items) == 2):
            return items[-1]
        if origin is dict or bare is dict:
            return Any
    return None


def _key_annotation(annotation: Any) -> Any:
    """Return the annotation of the keys of a mapping."""
    return next((get_args(bare)[0] for m in members(annotation) if get_origin(bare := strip(m)[0]) is dict), str)


def _keys(annotation: Any) -> Iterator[str]:
    """Yield the keys that a value of `annotation` may have, where it is a section."""
    for member in members(annotation):
        bare = strip(member)[0]
        if isinstance(bare, type) and is_dataclass(bare):
            yield from hints(bare)


def _line(root: yaml.Node | None, steps: Sequence[Step]) -> int:
    """Return the line, from 1, of the deepest of the steps that the file has."""
    line = root.start_mark.line + 1 if root else 1
    node = root
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(step)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line
