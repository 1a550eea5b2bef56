"""Each run is composed once, and validated once by each process that works on it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paperbench.cli import reproducing, running, sweeping
from paperbench.cli.app import app
from paperbench.config.compose import compose
from paperbench.config.validate import validate
from paperbench.engine import session
from paperbench.report.layout import load
from paperbench.report.preparing import prepare
from paperbench.sweeps import run
from paperbench.sweeps.launchers.base import Context
from paperbench.sweeps.plan import plan_overrides
from tests.engine import toy
from tests.report.made_runs import finish
from tests.sweeps import toys

USERS = (reproducing, running, sweeping)
"""Imported before anything is counted: the commands import them when they are called."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The calls of `compose` and `validate`, by whichever module."""
    counts: Counter[str] = Counter()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            counts[function.__name__] += 1
            return function(*arguments, **keywords)

        return wrapper

    for function in (compose, validate):
        for module in list(sys.modules.values()):
            if module.__name__.startswith("paperbench") and vars(module).get(function.__name__) is function:
                monkeypatch.setattr(module, function.__name__, counted(function))
    return counts


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configurations with the experiment `toy`."""
    toy.register(monkeypatch)
    return toys.conf(tmp_path / "elsewhere")


def start_with(launcher: toys.InThisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `launcher` start the runs of a sweep."""

    def create(name: str, settings: object, context: Context) -> toys.InThisProcess:
        return launcher

    monkeypatch.setattr(run, "create", create)


def call(*arguments: object) -> None:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output


def test_train(conf: Path, calls: Counter[str]) -> None:
    call("train", "toy", "seed=5", "--conf-dir", conf)
    assert calls == {"compose": 1, "validate": 1}


def test_estimate(calls: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_run_task", lambda *arguments: {})
    call("estimate", "rca", "--smoke")
    assert calls == {"compose": 1, "validate": 1}


def test_sweep_and_the_same_again(conf: Path, calls: Counter[str]) -> None:
    command = ("sweep", "toy", "seed=0,1", "--conf-dir", conf, "--jobs", 1)
    call(*command, "--dry-run")
    assert calls == {"compose": 2, "validate": 2}
    for member in plan_overrides("toy", ["seed=0,1"], conf_dir=conf).members:
        finish(member, {})
    calls.clear()
    call(*command)
    assert calls == {"compose": 2, "validate": 2}


def test_reproduction(calls: Counter[str]) -> None:
    prepared = prepare(load("faster-rcnn/table-9"), "smoke", seeds=3)
    runs = len(prepared.sweep.members)
    assert calls == {"compose": runs, "validate": runs}


def test_a_stacked_sweep(calls: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both runs by the sweep, and both again by the one process that trains them, which composes nothing."""
    launcher = toys.InThisProcess()
    start_with(launcher, monkeypatch)
    call("sweep", "vae", "seed=0,1", "--smoke", "--stacked")
    assert [len(job.directories) for job in launcher.jobs] == [2]
    assert calls == {"compose": 2, "validate": 4}
