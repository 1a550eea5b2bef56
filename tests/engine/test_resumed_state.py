"""A resumed training is the uninterrupted one: what it continues with, and which checkpoint stays the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.signals import StopFlag
from paperbench.errors import CheckpointError, Stopped
from tests.engine.test_trainer import Line, fetch, make_run, make_trainer

STEPS, STOP = 6, 3
SETTINGS: dict[str, Any] = {"steps": STEPS, "log_every": 4, "checkpoint_every": 100}


def stopped(path: Path, **changes: Any) -> None:
    """A training that is asked to stop in step `STOP`."""
    stop = StopFlag()

    def fetch_and_stop(key: Any) -> Any:
        if key.step == STOP - 1:
            stop.set("SIGTERM")
        return fetch(key)

    run = replace(make_run(path), stop=stop)  # one that is not set would be taken for none
    trainer = make_trainer(run, Line(dropout=0.3), **{**SETTINGS, "fetch": fetch_and_stop, "prefetch": 0, **changes})
    with pytest.raises(Stopped):
        trainer.fit()
    run.log.close()


def resumed(path: Path, **changes: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Its last losses and its last state, without what depends on the clock."""
    run = make_run(path)
    trainer = make_trainer(run, Line(dropout=0.3), **{**SETTINGS, **changes})
    try:
        values = trainer.fit()
    finally:
        run.log.close()
    loaded = CheckpointStore(path / "checkpoints").load()
    assert loaded is not None
    state = {name: part for name, part in loaded[0].items() if name != "clock"}
    return {name: value for name, value in values.items() if "per_second" not in name}, state


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_it_ends_in_the_same_state(tmp_path: Path) -> None:
    whole = resumed(tmp_path / "whole")
    stopped(tmp_path / "part")
    values, state = resumed(tmp_path / "part")
    assert values == whole[0]
    assert same(state, whole[1])


@pytest.mark.parametrize(("mode", "scores", "best"), [("max", [9.0, 5.0, 7.0], 2), ("min", [1.0, 5.0, 3.0], 2)])
def test_a_worse_score_does_not_overwrite_the_best(tmp_path: Path, mode: str, scores: list[float], best: int) -> None:
    left = iter(scores)
    evaluated: dict[str, Any] = {
        "evaluate": lambda: {"AP": next(left)},
        "evaluate_every": 2,
        "watch": "AP",
        "watch_mode": mode,
    }
    stopped(tmp_path, **evaluated)
    resumed(tmp_path, **evaluated)
    assert next(left, None) is None
    loaded = CheckpointStore(tmp_path / "checkpoints").load("best")
    assert loaded is not None
    assert loaded[1] == best


def _without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def drop(state: dict[str, Any]) -> None:
        place = state
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return drop


@pytest.mark.parametrize(
    "keys",
    [
        ("schema_version",), ("config_hash",), ("best",), ("evaluation_owed",), ("module",), ("optimizer",), ("rng",),
        ("log",), ("clock",), ("log", "names"), ("log", "sums"), ("log", "summed"), ("log", "logged"), ("rng", "torch"),
        ("rng", "python"), ("rng", "numpy"), ("optimizer", "state"), ("module", "linear.weight"), ("module", "calls"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_lacks_a_part_is_not_continued(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """An element that can be missing unnoticed is one that a resume does not restore."""
    stopped(tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints")
    loaded = store.load()
    assert loaded is not None
    _without(*keys)(loaded[0])
    store.save(loaded[0], step=STOP)
    with pytest.raises((CheckpointError, KeyError, RuntimeError, ValueError, TypeError)):
        resumed(tmp_path)
