"""The queue of reproductions: what it starts, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks import queue
from benchmarks.queue import Entry, Queue, Root, read_list

from paperbench.engine.signals import StopFlag
from paperbench.errors import ConfigError
from paperbench.report.layout import load

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1]); table = sys.argv[3]
name = table.replace("/", "-")
def stop(*_):
    (folder / (name + ".stopped")).touch(); sys.exit(3)
signal.signal(signal.SIGTERM, stop)
calls = folder / "calls.jsonl"
with calls.open("a") as file:
    file.write(json.dumps({"arguments": sys.argv[2:], "data": os.environ.get("PAPERBENCH_DATA"),
        "threads": os.environ["OMP_NUM_THREADS"], "path": os.environ.get("PYTHONPATH"), "nice": os.nice(0)}) + "\\n")
if table == "a/fails": sys.exit(1)
if table == "a/long" and not (folder / "go").exists(): time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(queue, "_use_one_core", lambda: None)


def made(folder: Path, *tables: str, stop: StopFlag | None = None) -> Queue:
    (folder / "program.py").write_text(PROGRAM)
    entries = [Entry(part="a", table=table, seeds=2) for table in tables]
    return Queue(
        Root(folder), entries, [sys.executable, str(folder / "program.py"), str(folder)], data=Path("/data"), folder=folder,
        stop=StopFlag() if stop is None else stop,
    )  # fmt: skip


def calls(folder: Path) -> list[dict[str, Any]]:
    file = folder / "calls.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def states(folder: Path) -> list[str]:
    return [state["state"] for state in Root(folder).states().values()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_thread(work: Callable[[], int]) -> Callable[[], int]:
    """Start `work`; return what waits for its result."""
    import threading

    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()

    def result() -> int:
        thread.join(30)
        return found[0]

    return result


def test_entries_are_made_in_order_and_once(tmp_path: Path) -> None:
    assert made(tmp_path, "a/one", "a/fails", "a/two").work() == 1
    assert [call["arguments"][1] for call in calls(tmp_path)] == ["a/one", "a/fails", "a/two"]
    first = calls(tmp_path)[0]
    assert first["arguments"] == [
        "reproduce",
        "a/one",
        "--scale",
        "paper",
        "--seeds",
        "2",
        "--export",
        str(tmp_path / "results"),
    ]
    assert (first["data"], first["threads"], first["path"]) == ("/data", "1", None)
    assert states(tmp_path) == ["done", "failed", "done"]
    assert made(tmp_path, "a/one", "a/fails", "a/two").work() == 1
    assert [call["arguments"][1] for call in calls(tmp_path)][3:] == ["a/fails"]
    assert "--retry-failed" in calls(tmp_path)[3]["arguments"]


def test_a_stop_has_the_run_save_and_the_same_command_goes_on(tmp_path: Path) -> None:
    result = in_thread(made(tmp_path, "a/long", "a/two").work)
    wait_for(lambda: len(calls(tmp_path)) == 1)
    Root(tmp_path).stop.touch()
    assert result() == 3
    assert (tmp_path / "a-long.stopped").exists()
    assert states(tmp_path) == ["stopped"]
    (tmp_path / "go").touch()
    assert made(tmp_path, "a/long", "a/two").work() == 0
    assert states(tmp_path) == ["done", "done"]
    assert Root(tmp_path).states()[made(tmp_path, "a/long").entries[0].name]["sessions"] == 2


def test_a_signal_stops_it_as_well(tmp_path: Path) -> None:
    stop = StopFlag()
    result = in_thread(made(tmp_path, "a/long", stop=stop).work)
    wait_for(lambda: len(calls(tmp_path)) == 1)
    stop.set("SIGTERM")
    assert result() == 3
    assert (tmp_path / "a-long.stopped").exists()


def test_a_pause_has_the_run_save_and_wait(tmp_path: Path) -> None:
    result = in_thread(made(tmp_path, "a/long").work)
    wait_for(lambda: len(calls(tmp_path)) == 1)
    Root(tmp_path).pause.touch()
    wait_for(lambda: "paused" in (tmp_path / "queue.log").read_text())
    assert (tmp_path / "a-long.stopped").exists()
    assert states(tmp_path) == ["paused"]
    time.sleep(0.2)
    assert len(calls(tmp_path)) == 1
    (tmp_path / "go").touch()
    Root(tmp_path).pause.unlink()
    assert result() == 0
    assert len(calls(tmp_path)) == 2


def test_what_a_killed_queue_left_behind_is_ended_first(tmp_path: Path) -> None:
    unfinished = made(tmp_path, "a/long")
    process = subprocess.Popen(
        [*unfinished.program, *unfinished.entries[0].arguments()], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    wait_for(lambda: len(calls(tmp_path)) == 1)
    unfinished.root.update(
        unfinished.entries[0].name, state="running", process=process.pid, process_start=queue._start_of(process.pid)
    )
    in_thread(lambda: process.wait())  # as init would
    (tmp_path / "go").touch()
    assert unfinished.work() == 0
    assert process.wait() == 3
    assert "a queue was killed while this ran" in (tmp_path / "queue.log").read_text()


def test_a_number_that_belongs_to_another_process_now_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        waiting = made(tmp_path, "a/one")
        waiting.root.update(waiting.entries[0].name, state="running", process=other.pid, process_start="1")
        assert waiting.work() == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_run_that_is_killed_is_tried_again_but_not_for_ever(tmp_path: Path) -> None:
    queued = made(tmp_path, "a/long")
    result = in_thread(queued.work)
    for session in range(1, queue.MOST_KILLS + 1):
        wait_for(lambda count=session: len(calls(tmp_path)) == count)
        os.kill(Root(tmp_path).states()[queued.entries[0].name]["process"], signal.SIGKILL)
    assert result() == 1
    assert states(tmp_path) == ["failed"]


def test_two_queues_on_one_root_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = Root(tmp_path).lock
    assert lock.acquire()
    assert queue.main(["--root", str(tmp_path), "--tag", "HEAD"]) == 2
    assert f"has a queue at work (pid {os.getpid()} on " in capsys.readouterr().err
    lock.release()


def test_the_clone_is_that_of_one_commit(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    git = ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    for text in ("one", "two"):
        (source / "file").write_text(text)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", text], check=True)
    subprocess.run([*git, "tag", "first", "HEAD~1"], check=True)
    root = Root(tmp_path)
    (root.clone / ".venv/bin").mkdir(parents=True)
    with pytest.raises(ConfigError, match="git rev-parse --verify nothing"):
        queue.prepare_clone(root, "nothing", source)
    (root.clone / ".venv/bin").rmdir()
    (root.clone / ".venv").rmdir()
    root.clone.rmdir()
    environment = tmp_path / "uv"
    environment.write_text(
        "#!/bin/sh\nmkdir -p .venv/bin; touch .venv/bin/paperbench; echo .venv > .git/info/exclude\n"
    )
    environment.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "_uv", lambda: [str(environment)])
        queue.prepare_clone(root, "first", source)
    assert (root.clone / "file").read_text() == "one"
    queue.prepare_clone(root, "first", source)
    with pytest.raises(ConfigError, match="tables of one folder come from one commit"):
        queue.prepare_clone(root, "HEAD", source)
    (root.clone / "file").write_text("changed")
    with pytest.raises(ConfigError, match="was changed, so that its tables would not be those of first"):
        queue.prepare_clone(root, "first", source)


@pytest.mark.parametrize("entry", read_list(), ids=lambda entry: entry.name)
def test_every_entry_of_the_list_can_be_made(entry: Entry) -> None:
    layout = load(entry.table)
    assert layout.select(entry.scale, entry.rows, entry.columns)
    assert len({(other.name) for other in read_list()}) == len(read_list())


def test_the_commands_are_those_that_a_person_would_type(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert queue.main(["--root", str(tmp_path / "none"), "--list", "--part", "a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "a  paperbench reproduce vae/figure-2 --scale paper --column 1e6 --column 3.2e6 --column 1e7" in lines
    assert any('--row "ST-FCN Aff" --column R' in line for line in lines)
    assert not (tmp_path / "none").exists()
