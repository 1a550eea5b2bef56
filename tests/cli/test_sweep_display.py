"""What a person sees of a sweep while it runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from paperbench.cli.sweep_display import PlainWatcher, RichWatcher, counts, progress, result, state, title
from paperbench.sweeps.plan import Sweep
from paperbench.sweeps.watch import MemberStatus
from tests.engine import toy
from tests.sweeps import toys


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    toy.register(monkeypatch)
    return toys.sweep(tmp_path, 3)


def statuses(sweep: Sweep) -> list[MemberStatus]:
    return [MemberStatus(member=member) for member in sweep.members]


def test_words(sweep: Sweep) -> None:
    first, second, third = statuses(sweep)
    assert (title(first.member), state(first), progress(first), result(first)) == ("seed=0", "to do", "", "")
    first.state, first.phase, first.done, first.total, first.best = "running", "train", 40, 200, 0.51234
    assert (progress(first), result(first)) == ("train 40/200", "best 0.5123")
    second.state, second.reused, second.results = "done", True, {"metrics": {"x": 1.0, "test/error": 2.5}}
    assert (state(second), progress(second), result(second)) == ("done before", "", "test/error 2.5")
    third.state, third.done, third.total = "failed", 3, 9
    assert progress(third) == "3/9"
    assert counts([first, second, third]) == "1 done, 1 failed, 1 running"
    unlabelled = MemberStatus(member=toys.member(Path("x"), seed=9))
    assert title(unlabelled.member) == unlabelled.member.hash


def test_plain_lines_tell_what_changes_and_once_a_minute_what_does_not(sweep: Sweep) -> None:
    now = 0.0
    stream = io.StringIO()
    watcher = PlainWatcher(stream, clock=lambda: now)
    first, second, third = everything = statuses(sweep)
    watcher.begin(sweep, everything, 2)
    second.state, second.reused = "done", True
    watcher.changed(second)
    first.state, first.phase, first.done, first.total = "running", "train", 4, 9
    watcher.changed(first)
    now = 59.0
    watcher.looked()
    now = 61.0
    watcher.looked()
    watcher.looked()
    first.state, first.seconds, first.results = "done", 75.0, {"metrics": {"test/error": 0.5}}
    watcher.changed(first)
    third.state, third.message, third.seconds = "failed", "it broke\nbadly", 3.0
    watcher.changed(third)
    watcher.message("stopping")
    watcher.close()
    assert stream.getvalue().splitlines() == [
        f"sweep toy ({sweep.id}): 3 runs, 2 at a time",
        "[1/3]  running  seed=0  train 4/9",
        "  seed=0  train 4/9",
        "[2/3]  done  seed=0  test/error 0.5  1:15",
        "[3/3]  failed  seed=2  0:03  it broke",
        "stopping",
    ]


def test_a_reader_that_goes_away_silences_it(sweep: Sweep) -> None:
    stream = io.StringIO()
    watcher = PlainWatcher(stream)
    stream.close()
    watcher.begin(sweep, statuses(sweep), 1)
    watcher.message("nobody hears this")


def shown(sweep: Sweep, everything: list[MemberStatus], *, height: int = 30) -> str:
    console = Console(file=io.StringIO(), width=100, height=height, force_terminal=True, color_system=None)
    watcher = RichWatcher(console)
    watcher.begin(sweep, everything, 2)
    watcher.changed(everything[0])
    watcher.looked()
    watcher.message("kept above")
    watcher.close()
    watcher.close()
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_live_table_shows_every_run(sweep: Sweep) -> None:
    first, second, third = everything = statuses(sweep)
    first.state, first.phase, first.done, first.total, first.best = "running", "train", 40, 200, 0.5
    second.state, second.seconds, second.results = "done", 75.0, {"metrics": {"test/error": 2.5}}
    third.state = "failed"
    text = shown(sweep, everything)
    assert f"sweep toy ({sweep.id}): 1 done, 1 failed, 1 running" in text
    for said in ("seed=0", "train 40/200", "best 0.5", "seed=1", "test/error 2.5", "1:15", "kept above"):
        assert said in text


def test_in_a_small_window_what_runs_and_what_failed_comes_first(tmp_path: Path, sweep: Sweep) -> None:
    everything = statuses(toys.sweep(tmp_path, 20))
    everything[17].state = "running"
    everything[18].state = "failed"
    text = shown(sweep, everything, height=8)
    assert "seed=17" in text
    assert "seed=18" in text
    assert "and 17 more" in text
