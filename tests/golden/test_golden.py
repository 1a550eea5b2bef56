from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.golden import CASES, measure, pinned


@pytest.mark.parametrize("name", CASES)
def test_the_first_steps_give_the_pinned_losses(name: str, tmp_path: Path) -> None:
    expected = json.loads(pinned(name).read_text(encoding="utf-8"))
    found = measure(CASES[name], tmp_path / "run")
    assert len(found) == len(expected) == CASES[name].steps
    for step, (losses, of_then) in enumerate(zip(found, expected, strict=True)):
        assert losses.keys() == of_then.keys()
        # Other instruction sets round differently: up to 1e-4 was seen. A change of the mathematics is far larger.
        for loss, value in losses.items():
            assert value == pytest.approx(of_then[loss], rel=2e-3, abs=1e-5), f"step {step + 1}, {loss}: {value}"
