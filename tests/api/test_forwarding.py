"""Every argument of a function arrives at what the command line has in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import paperbench
from paperbench.api import commands
from paperbench.errors import EXIT_DONE
from paperbench.records import launch, selection
from paperbench.report import reproduction
from paperbench.sweeps import launch as sweeping


class _CaughtError(Exception):
    pass


def noted(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, answer: Any = None) -> dict[str, Any]:
    """Replace a function; return what it is called with. Without an answer it ends the call."""
    seen: dict[str, Any] = {}

    def note(*given: Any, **settings: Any) -> Any:
        seen.update(settings, given=given)
        if answer is None:
            raise _CaughtError
        return answer

    monkeypatch.setattr(place, name, note)
    return seen


@pytest.mark.parametrize(
    ("function", "verb"), [(paperbench.train, "train"), (paperbench.evaluate, "eval"), (paperbench.estimate, "estimate")]
)  # fmt: skip
def test_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, function: Callable[..., Any], verb: str) -> None:
    composed = noted(monkeypatch, launch, "compose_for", answer="composed")
    started = noted(monkeypatch, launch, "start")
    with pytest.raises(_CaughtError):
        function(
            "mine", "a.b=1", c={"d": 2}, run_dir=tmp_path / "run", seed=7, device="cpu", nproc=2, smoke=True,
            conf_dir=tmp_path / "conf", progress=False,
        )  # fmt: skip
    assert composed["given"][:2] == (verb, "mine")
    assert sorted(composed["given"][2]) == ["a.b=1", "c.d=2", "device=cpu", "nproc=2", "scale=smoke", "seed=7"]
    assert composed["conf_dir"] == tmp_path / "conf"
    assert (started["given"], started["run_dir"]) == (("composed",), tmp_path / "run")
    assert started["worker_reporter"] is None
    with pytest.raises(_CaughtError):
        function("mine")
    assert composed["given"][2] == []


def test_a_resumed_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = noted(monkeypatch, launch, "resume")
    for from_start in (True, False):
        with pytest.raises(_CaughtError):
            paperbench.resume(tmp_path, from_start=from_start, progress=False)
        assert (seen["given"], seen["from_start"]) == ((tmp_path,), from_start)


def test_a_list_of_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(selection, "find_runs", lambda folder: [folder])
    seen = noted(monkeypatch, selection, "select")
    with pytest.raises(_CaughtError):
        paperbench.runs("a>=1", state="done", root=tmp_path, sort="seconds", reverse=True, limit=3)
    assert (seen["filters"], seen["sort"], seen["reverse"], seen["limit"]) == (
        ["a>=1", "state=done"], "seconds", True, 3,
    )  # fmt: skip
    assert (seen["given"], seen["root"]) == (([tmp_path],), tmp_path)


OPTIONS: dict[str, Any] = {"jobs": 3, "launcher": "slurm", "retry_failed": True, "stacked": True}


def test_a_sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = noted(monkeypatch, sweeping, "run_experiment")
    with pytest.raises(_CaughtError):
        paperbench.sweep(
            "mine",
            "a.b=1,2",
            seed=[0, 1],
            c=3,
            smoke=True,
            fail_fast=True,
            conf_dir=tmp_path,
            progress=False,
            **OPTIONS,
        )
    assert seen["given"] == ("mine", ["a.b=1,2", "seed=0,1", "c=3", "scale=smoke"])
    options = seen["options"]
    assert {name: getattr(options, name) for name in (*OPTIONS, "fail_fast")} == {**OPTIONS, "fail_fast": True}
    assert seen["conf_dir"] == tmp_path
    for name in ("retry_failed", "fail_fast", "stacked"):
        one: Any = {name: True}
        with pytest.raises(_CaughtError):
            paperbench.sweep("mine", **one)
        flags = {flag: getattr(seen["options"], flag) for flag in ("retry_failed", "fail_fast", "stacked")}
        assert [flag for flag, value in flags.items() if value] == [name]


def test_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prepared = SimpleNamespace(directory=tmp_path)
    planned = noted(monkeypatch, reproduction, "plan_reproduction", answer=(prepared, "settings"))
    made = noted(monkeypatch, reproduction, "make")
    with pytest.raises(_CaughtError):
        paperbench.reproduce("p/t", "a=1", b=2, scale="smoke", seeds=4, conf_dir=tmp_path, progress=False, **OPTIONS)
    assert planned["given"] == ("p/t", ["a=1", "b=2"])
    assert (planned["scale"], planned["seeds"], planned["launcher"], planned["conf_dir"]) == (
        "smoke",
        4,
        "slurm",
        tmp_path,
    )
    assert made["given"] == (prepared, "settings")
    assert {name: getattr(made["options"], name) for name in OPTIONS} == OPTIONS


def test_the_options_of_a_sweep_reach_its_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what lies between: each of `SweepOptions` alone."""
    seen = noted(monkeypatch, sweeping, "run_sweep", answer=SimpleNamespace(exit_code=EXIT_DONE))
    planned: Any = SimpleNamespace(launcher="local")
    each: list[dict[str, Any]] = [{"jobs": 5}, {"retry_failed": True}, {"fail_fast": True}, {"stacked": True}]
    for changes in each:
        options = sweeping.SweepOptions(**changes)
        sweeping.run_planned(planned, None, options=options, watcher=commands._watcher(False))
        assert {name: seen[name] for name in ("jobs", "retry_failed", "fail_fast", "stacked")} == {
            "jobs": None, "retry_failed": False, "fail_fast": False, "stacked": False, **changes,
        }  # fmt: skip
        assert (seen["given"], seen["launcher"]) == ((planned,), "local")
