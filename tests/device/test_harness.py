"""The pretended device itself: mistakes that a real one would refuse are refused, legal uses pass, and waits are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.device import selftest


@pytest.fixture(scope="module", params=["cuda", "mps"])
def tried(request: pytest.FixtureRequest, library: Path, child: Callable[..., str]) -> dict[str, Any]:
    return json.loads(child("selftest", request.param, str(library)))


def test_mistakes_are_caught(tried: dict[str, Any]) -> None:
    assert len(tried["mistakes"]) >= 17
    assert [name for name, error in tried["mistakes"].items() if error is None] == []


def test_legal_uses_pass(tried: dict[str, Any]) -> None:
    assert len(tried["legal"]) >= 13
    assert {name: error for name, error in tried["legal"].items() if error is not None} == {}


def test_a_wait_is_recorded_with_its_line(tried: dict[str, Any]) -> None:
    source = Path(selftest.__file__).read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(source, 1) if ".item()" in text)
    waits = [event for event in tried["events"] if event[1] == "wait" and event[2].startswith("_local_scalar_dense")]
    assert any(event[3].startswith(f"selftest.py:{line}") for event in waits), waits


def test_waits_of_legal_uses(tried: dict[str, Any]) -> None:
    # copy, assignment, host indices, mask, item, list of indices, truth, list, to the host, to a rank; a copy that may is none.
    assert tried["waits"] == 10


def test_what_two_streams_do_unordered_is_recorded(tried: dict[str, Any]) -> None:
    crossed = tried["crossed"]
    assert {name for name, count in crossed.items() if count > 0} == {
        name for name in crossed if name.startswith("late ")
    }
    assert len(crossed) in (0, 9)  # mps has no streams
