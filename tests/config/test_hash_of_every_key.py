"""The hash of a run changes with every key of every task, but for those that change no result."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from paperbench.catalog import TASKS
from paperbench.config.fields import defaults, walk
from paperbench.config.validate import config_hash, schema_of

WITHOUT_EFFECT = {
    "engine",
    "evaluation.engine",
    "output.root",
    "output.transforms",
    "tensorboard",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_seconds",
    "train.prefetch",
}
"""Keys of any task whose change is no other run: a list of its own, so that a mark on a key that matters is seen here."""


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "more"]
    return f"{value}-other"


@pytest.mark.parametrize("name", list(TASKS))
def test_the_hash_changes_with_every_key(name: str) -> None:
    schema = schema_of(TASKS[name])
    mapping = {**defaults(schema), "task": name}
    before = config_hash(mapping)
    same = set()
    for key, known in walk(schema, mapping):
        if key == "task":
            continue
        other = deepcopy(mapping)
        *sections, last = key.split(".")
        place: Any = other
        for section in sections:
            place = place[section]
        place[last] = changed(place.get(last, known.default))
        if config_hash(other) == before:
            same.add(key)
    assert {key for key in same if not key.endswith((".cache_mb", "features_mb"))} <= WITHOUT_EFFECT
