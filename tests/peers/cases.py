"""Lists of cases for `pytest.mark.parametrize`, and the random numbers of each."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
import pytest


def grid(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return every combination of one value from each axis."""
    return list(product(*axes))


def cases(kinds: Iterable[str], seeds: int) -> pytest.MarkDecorator:
    """Parametrise a test by `kind` and `seed`: each kind of input, drawn `seeds` times."""
    return pytest.mark.parametrize(("kind", "seed"), grid(kinds, range(seeds)))


def random(kind: str, seed: int) -> np.random.Generator:
    """Return the random numbers of one case: others for every kind and every seed."""
    return np.random.default_rng([zlib.crc32(kind.encode()), seed])
