"""JSON and YAML in which no key stands twice: of two values of one key, readers keep the last, and the first is lost in silence."""

from __future__ import annotations

import gc
import json
from typing import Any

import yaml


def load_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError for what is not JSON, and for a key that stands twice in one object."""
    # The collector would look through half a million new objects again and again, of which none is garbage.
    collects = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text, object_pairs_hook=_object)
    finally:
        if collects:
            gc.enable()


def load_yaml(text: str) -> Any:
    """Return the value of a YAML text of plain values. Raises yaml.YAMLError, also for a key that stands twice in one mapping."""
    return yaml.load(text, Loader=UniqueKeyLoader)


class UniqueKeyLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` that refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build the mapping of a node. Raises ConstructorError."""
        seen: set[tuple[str, Any]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep=deep)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found
