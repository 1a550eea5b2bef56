"""Mistakes in a configuration, in words: what was given, where, what is expected, what stands there now, what is near."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import ValidationError

from paperbench.catalog import DATASETS, TaskSpec
from paperbench.config.fields import complete, describe, hints, members, section_of, strip, union_of, walk
from paperbench.config.former import todays_key
from paperbench.config.suggest import nearest, nearest_keys


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where values came from, so that a mistake can be traced: command-line text by dotted key, file by dotted key."""

    given: Mapping[str, str] = field(default_factory=dict)
    file: Callable[[str], str | None] = lambda key: None

    def override(self, key: str) -> tuple[str, str] | None:
        """Key and text of the override that set `key`, else something below it, else a section around it."""
        if key in self.given:
            return key, self.given[key]
        below = (other for other in self.given if other.startswith(f"{key}."))
        around = (other for other in self.given if key.startswith(f"{other}."))
        found = next(below, None) or next(around, None)
        return (found, self.given[found]) if found else None

    def of(self, key: str) -> str:
        """` (given as "…")`, ` (in FILE:LINE)` or nothing."""
        if override := self.override(key):
            return f' (given as "{override[1]}")'
        file = self.file(key)
        return f" (in {file})" if file else ""


def show(value: Any) -> str:
    """A value as it would be written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return '""'
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{show(item)}' for key, item in value.items())}}}"
    return str(value)


def look_up(mapping: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The value at a dotted key."""
    value: Any = mapping
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return value


class Explainer:
    """Words the mistakes of one configuration. `now` is the complete configuration before the values that are judged."""

    def __init__(self, task: TaskSpec, schema: type, now: Mapping[str, Any], origin: Origin) -> None:
        self.task = task
        self.schema = schema
        self.now = complete(schema, now)
        self.origin = origin
        self.keys = dict(walk(schema, self.now))

    def with_now(self, keys: list[str]) -> str:
        """`a (now 1), b (now 2)`."""
        return ", ".join(f"{key} (now {show(look_up(self.now, key))})" for key in keys)

    def unknown(self, key: str) -> str:
        """A key that the schema does not have. A key below a plain value is one too."""
        if key == "data" and "data" not in hints(self.schema):
            return f"{key}: task {self.task.name} reads no data set{self.origin.of(key)}"
        override = self.origin.override(key)
        full = override[0] if override and override[0].startswith(key) else key
        head = f"{full}: no such key{self.origin.of(key)}."
        if renamed := todays_key(self.schema, self.now, full):
            return f"{head} It was renamed: {self.with_now([renamed])}"
        parts = full.split(".")
        for end in range(1, len(parts)):
            parent = ".".join(parts[:end])
            if parent in self.keys:
                return (
                    f"{head} {parent} is a single value (now {show(look_up(self.now, parent))}) without keys below it"
                )
        if elsewhere := self._in_other_variants(parts):
            return f"{head} {elsewhere}"
        if near := nearest_keys(full, self.keys):
            return f"{head} Nearest: {self.with_now(near)}"
        section = full.rpartition(".")[0]
        siblings = [k for k in self.keys if k.rpartition(".")[0] == section]
        if siblings:
            return f"{head} Keys there: {self.with_now(siblings)}"
        return f"{head} Sections: {', '.join(hints(self.schema))}"

    def _in_other_variants(self, parts: list[str]) -> str | None:
        """`data.root` exists, only not for the data set that is chosen."""
        annotation = hints(self.schema).get(parts[0])
        variants = union_of(annotation) if annotation is not None else None
        if variants is None or len(parts) != 2:
            return None
        having = [tag for tag, variant in variants.classes.items() if parts[1] in hints(variant)]
        chosen = look_up(self.now, f"{parts[0]}.{variants.discriminator}")
        if not having or chosen in having:
            return None
        return f"{parts[0]}={chosen} has none; {', '.join(f'{parts[0]}={tag}' for tag in having)} would"

    def wrong(self, key: str, value: Any, annotation: Any, said: str | None = None) -> str:
        """A value that its key does not take."""
        override = self.origin.override(key)
        source = f' (as "{override[1]}")' if override else self.origin.of(key)
        current = look_up(self.now, key)
        text = f"{key}: {mismatch(value, annotation, said)}{source}."
        if near := nearest_choices(value, annotation):
            text += f" Nearest: {', '.join(near)}."
        if current != value and key in self.keys:
            text += f" Now {show(current)}."
        return text.rstrip(".")

    def variant(self, key: str, value: Any, annotation: Any) -> str:
        """A section whose kind is unknown, such as a `data.name` that no reader answers to."""
        variants = union_of(annotation)
        assert variants is not None
        tag = look_up(value, variants.discriminator) if isinstance(value, Mapping) else value
        named = f"{key}.{variants.discriminator}"
        source = self.origin.of(named) or self.origin.of(key)
        supported = [
            name for name in variants.classes if name not in DATASETS or self.task.name in DATASETS[name].tasks
        ]
        if tag is None:
            return f"{named}: nothing chosen{source}. Choose with {key}=…: {', '.join(supported)}"
        near = nearest(str(tag), supported)
        guess = f". Nearest: {', '.join(near)}" if near else ""
        verb = "takes" if tag in DATASETS else "knows"
        return f"{named}: task {self.task.name} {verb} {', '.join(supported)}, not {tag}{source}{guess}"


def mismatch(value: Any, annotation: Any, expected: str | None = None) -> str:
    """Return `expected a number above 0, given abc`: what the annotation takes and what was found in its place."""
    return f"expected {expected or describe(annotation)}, given {show(value)}{_kind(value, annotation)}"


def nearest_choices(value: Any, annotation: Any) -> list[str]:
    """Return the nearest of the values that the annotation lists; empty where it lists none."""
    return nearest(str(value), [str(choice) for member in members(annotation) for choice in _choices(member)])


def _choices(annotation: Any) -> tuple[Any, ...]:
    bare = strip(annotation)[0]
    return get_args(bare) if getattr(bare, "__origin__", None) is Literal else ()


def _kind(value: Any, annotation: Any) -> str:
    """Helps where the eye does not: a number in a YAML file where text is meant."""
    if strip(annotation)[0] is str and isinstance(value, int | float):
        return " (not text: put it in quotes)"
    return ""


def explain(error: ValidationError, explainer: Explainer, mapping: Mapping[str, Any]) -> list[str]:
    """One sentence per key. pydantic reports a union once per member; here each key is named once, in the schema's terms."""
    mistakes: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        key, value, annotation = _place(explainer.schema, mapping, detail["loc"])
        if key in mistakes:
            continue
        kind = detail["type"]
        if annotation is None:
            mistakes[key] = explainer.unknown(key)
        elif union_of(annotation):
            mistakes[key] = explainer.variant(key, value, annotation)
        elif kind == "missing" and value is None:
            mistakes[key] = f"{key}: has no value. Expected {describe(annotation)}"
        elif kind == "value_error":
            reason = str(detail.get("ctx", {}).get("error", detail["msg"]))
            mistakes[key] = f"{key}: {reason}{explainer.origin.of(key)}" if key else reason
        else:
            mistakes[key] = explainer.wrong(key, value, annotation)
    return list(mistakes.values())


def _place(schema: type, mapping: Mapping[str, Any], location: tuple[int | str, ...]) -> tuple[str, Any, Any]:
    """Dotted key, value and annotation for pydantic's location, whose union tags and list positions are no keys of ours.

    The annotation is None for a key the schema does not have. An empty location is the whole configuration.
    """
    section: type | None = schema
    value: Any = mapping
    annotation: Any = schema
    names: list[str] = []
    for step in location:
        if section is None:
            break
        known = hints(section)
        if step not in known:
            variants = union_of(annotation)
            if variants and step in variants.classes:
                continue
            return ".".join([*names, str(step)]), None, None
        names.append(str(step))
        annotation = known[step]
        value = value.get(step) if isinstance(value, Mapping) else None
        section = section_of(annotation, value)
    return ".".join(names), value, annotation
