"""A sweep, given again and again, while SIGKILL strikes its runs, the process that starts them, and the sweep itself.

Used by the suite at a small size and by `benchmarks/sweep.py` at full size. Linux only: processes are found in /proc.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from paperbench.engine.checkpoints import CheckpointStore
from paperbench.sweeps import record
from tests.engine import toy

TARGETS = ("run", "server", "sweep")


@dataclass
class Account:
    """What was done to a sweep: SIGKILLs by target, the exit codes of the command in order, and the seconds it all took."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TARGETS, 0))
    exit_codes: list[int] = field(default_factory=list)
    seconds: float = 0.0


class Process(Protocol):
    """A sweep in a process of its own; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...


def disturb(
    start: Callable[[], Process],
    *,
    kills: Mapping[str, int],
    seed: int,
    pauses: tuple[float, float] = (0.1, 0.6),
    limit: float = 600.0,
) -> Account:
    """Starts the sweep until it ends with 0, killing as often as `kills` says, at moments and in an order drawn from `seed`.

    Raises `AssertionError` when the sweep does not come to an end within `limit` seconds, or too soon for all the kills.
    """
    chance = random.Random(seed)
    due = [target for target in TARGETS for _ in range(kills[target])]
    chance.shuffle(due)
    account, began = Account(), time.monotonic()
    while not account.exit_codes or account.exit_codes[-1] != 0:
        sweep = start()
        while (code := sweep.poll()) is None:
            assert time.monotonic() - began < limit, f"no end after {account}"
            time.sleep(chance.uniform(*pauses))
            if due and _kill(due[-1], sweep.pid, chance):
                account.kills[due.pop()] += 1
        account.exit_codes.append(code)
    account.seconds = time.monotonic() - began
    assert not due, f"the sweep ended before it was killed {len(due)} more times: {account}"
    return account


def _kill(target: str, sweep: int, chance: random.Random) -> bool:
    """Kills one process of that kind, if there is any. A sweep is killed when it has runs, or it would never get anywhere."""
    found_servers = servers(sweep)
    runs = [pid for server in found_servers for pid in children(server)]
    found = {"run": runs, "server": found_servers if runs else [], "sweep": [sweep] if runs else []}[target]
    if not found:
        return False
    with suppress(ProcessLookupError):
        os.kill(chance.choice(found), signal.SIGKILL)
        return True
    return False


def servers(sweep: int) -> list[int]:
    """Return the process ids of the fork servers of a process that carries out a sweep."""
    return [pid for pid in children(sweep) if b"paperbench.sweeps.launchers.server" in command_line(pid)]


def children(parent: int) -> list[int]:
    """Process ids of the children of a process, those that ended and were not waited for left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return sorted(found)


def command_line(pid: int) -> bytes:
    """The arguments of a process, as one text."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


# --- what must hold afterwards ----------------------------------------------------------------------------------------


def differences(disturbed: Path, undisturbed: Path) -> list[str]:
    """What is not as it should be in the sweep recorded in `disturbed`, compared with the same one left in peace.

    Every run is done, has the metrics, the record of metrics and the weights of the other, bit for bit, and was completed once:
    its log has one ending at most and no session after it, and the events start no run that was seen done.
    """
    found = []
    runs, others = (runs_of(folder) for folder in (disturbed, undisturbed))
    if runs.keys() != others.keys():
        return [f"runs {sorted(runs)} and {sorted(others)}"]
    for name, run in runs.items():
        found += [f"{name}: {text}" for text in (*_of_results(run, others[name]), *_of_completions(run))]
    return found + _of_events(disturbed)


def runs_of(folder: Path) -> dict[str, Path]:
    """The directories of the runs of the sweep recorded in `folder`, by hash."""
    entries = json.loads((folder / record.RECORD).read_text())["runs"]
    return {entry["hash"]: folder / entry["directory"] for entry in entries}


def _of_results(run: Path, other: Path) -> list[str]:
    results, expected = _results(run), _results(other)
    if results is None or expected is None:
        return ["no results"]
    found = [] if results == expected else [f"results {results}, expected {expected}"]
    if toy.record(run) != toy.record(other):
        found.append("another record of metrics")
    state, right = _last_state(run), _last_state(other)
    if state.keys() != right.keys() or any(not torch.equal(state[name], right[name]) for name in right):
        found.append("another last checkpoint")
    return found


def _last_state(run: Path) -> dict[str, torch.Tensor]:
    """Weights, or numbers, in a run's last checkpoint."""
    loaded = CheckpointStore(run / "checkpoints", sweep=False).load()
    state = loaded[0] if loaded is not None else {}
    return state["module"] if "module" in state else {"drawn": torch.tensor(state.get("drawn", []))}


def _results(run: Path) -> dict[str, Any] | None:
    try:
        results = json.loads((run / "results.json").read_text())
        state = json.loads((run / "status.json").read_text())["state"]
    except (OSError, ValueError, KeyError):
        return None
    if state != "done":
        return None
    metrics = {name: value for name, value in results["metrics"].items() if name != "train/samples_per_second"}
    return {**results, "metrics": metrics, "seconds": None}


def _of_completions(run: Path) -> list[str]:
    """A session's first line in the log names experiment and task; its last, if it completes the run, is `done`."""
    lines = [line.split(maxsplit=2)[-1] for line in (run / "log.txt").read_text().splitlines() if line[:2] == "20"]
    ends = [number for number, line in enumerate(lines) if line == "done" or line.startswith("done:")]
    begins = [number for number, line in enumerate(lines) if " · " in line]
    if len(ends) > 1 or (ends and begins[-1] > ends[0]):
        return [f"completed more than once: {[line for line in lines if len(line) < 80]}"]
    return []


def _of_events(folder: Path) -> list[str]:
    found, done = [], set()
    for event in record.events(folder):
        if event["event"] == "started" and event["run"] in done:
            found.append(f"{event['run']}: started when it was done")
        if event["event"] == "ended" and event["state"] == "done":
            if event["run"] in done:
                found.append(f"{event['run']}: ended as done twice")
            done.add(event["run"])
    return found
