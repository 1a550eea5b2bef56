"""A few damaged inputs of every kind in every run of the suite, and many where it is run in whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperbench.errors import DataError
from tests.fuzz.damage import damaged_bytes, damaged_numbers, damaged_structure, damaged_text
from tests.fuzz.runs import fuzz
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    outcome = fuzz(TARGETS[name], tmp_path, count=30)
    assert not outcome.failures, outcome.failures[0]
    assert outcome.read + outcome.refused == 30


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_much_damaged_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    outcome = fuzz(TARGETS[name], tmp_path, count=400, seed=1000)
    assert not outcome.failures, outcome.failures[0]


def test_damage_follows_from_the_seed_and_is_damage() -> None:
    text, value = "a 1.5 2\nb 3 4\n", {"a": [1, 2, {"b": 3}], "c": "d"}
    pairs: list[tuple[Any, Any]] = [
        (damaged_bytes, text.encode()),
        (damaged_text, text),
        (damaged_numbers, text),
        (damaged_structure, value),
    ]
    for damage, given in pairs:
        made = [repr(damage(given, np.random.default_rng(seed))) for seed in range(50)]
        assert made == [repr(damage(given, np.random.default_rng(seed))) for seed in range(50)]
        assert len(set(made)) > 25
        assert made.count(repr(given)) < 10
    assert value == {"a": [1, 2, {"b": 3}], "c": "d"}


def test_what_a_reader_lets_through_is_a_failure(tmp_path: Path) -> None:
    wrong = (KeyError("x"), DataError("no\ud800 text, said at length"), AssertionError())
    answers = iter([None, DataError("the file is damaged here"), *wrong])

    def read(rng: np.random.Generator, folder: Path) -> None:
        (folder / "made").touch()
        error = next(answers)
        if error is not None:
            raise error

    outcome = fuzz(read, tmp_path, count=5, seed=7)
    assert (outcome.read, outcome.refused) == (1, 2)
    assert [number for number, _ in outcome.failures] == [9, 10, 11]
    assert list(tmp_path.iterdir()) == []
