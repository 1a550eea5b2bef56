"""Python values as overrides of a configuration, in the grammar of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from paperbench.config.quoting import hydra_text
from paperbench.errors import ConfigError


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """Return `KEY=VALUE` for every keyword argument; a mapping sets the keys below its own.

    `{"data": "voc", "optim": {"lr": 0.01}}` gives `["data=voc", "optim.lr=0.01"]`. Raises `ConfigError` for a value that no
    configuration can hold.
    """
    return [f"{key}={written(value, key)}" for key, value in leaves(values)]


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values; mappings are sections."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def written(value: Any, key: str) -> str:
    """Return `value` as it is typed behind `KEY=`. `key` is named in the error."""
    if getattr(value, "ndim", None) == 0:
        value = plain(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return hydra_text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return f"[{','.join(written(item, key) for item in value)}]"
    raise ConfigError(
        f"{key}: {value!r} is a {type(value).__name__}; give a number, text, a path, a list, a mapping or None"
    )


def plain(value: Any) -> Any:
    """Return a numpy array or scalar, or a tensor, as Python's own lists and numbers; anything else as it is."""
    return value.tolist() if hasattr(value, "__array__") and hasattr(value, "tolist") else value
