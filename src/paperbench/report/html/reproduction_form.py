"""The form of `reproduction.json`, as far as a report is drawn from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from paperbench.errors import DataError

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
"""A number is no text, and no truth value. Keys that a report does not draw from are not looked at."""

_MOST_FAULTS = 3


@dataclass(kw_only=True)
class _Printed:
    __pydantic_config__ = _STRICT

    value: float
    unit: str
    tolerance: float | None
    row: str = ""


@dataclass(kw_only=True)
class _Value:
    __pydantic_config__ = _STRICT

    seed: int | None
    value: float
    run: str | None


@dataclass(kw_only=True)
class _Cell:
    __pydantic_config__ = _STRICT

    published: _Printed | None
    metric: str | None
    values: list[_Value]
    n: int
    mean: float | None
    interval: tuple[float, float] | None
    interval_kind: str
    difference: float | None
    verdict: str
    departs: str
    remarks: list[str]


@dataclass(kw_only=True)
class _Row:
    __pydantic_config__ = _STRICT

    row: str
    cells: dict[str, _Cell]
    kind: str = ""


@dataclass(kw_only=True)
class _Reproduction:
    __pydantic_config__ = _STRICT

    name: str
    paper: str
    table: str
    caption: str
    source: str
    scale: str
    columns: list[str]
    rows: list[_Row]
    remarks: list[str]
    is_reproduction: bool
    overrides: list[str] = field(default_factory=list)


def check(path: Path, document: Mapping[str, Any]) -> None:
    """Raises `DataError` naming the file and the first faults of a document that no table could be drawn from."""
    try:
        TypeAdapter(_Reproduction).validate_json(json.dumps(document))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        said = "; ".join([*faults[:_MOST_FAULTS], *more])
        raise DataError(f"{path}: {' '.join(said.split())}; `paperbench reproduce` writes it again") from error
