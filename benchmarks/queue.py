"""Make the published tables at the paper's schedules, one command after another, for days, beside other work.

    uv run python -m benchmarks.queue --root DIR --tag TAG --data DIR     # works until the list is done or it is stopped
    uv run python -m benchmarks.queue --root DIR --status | --list
    uv run python -m benchmarks.queue --root DIR --stop | --pause | --resume

The runs are made from a clone at the tag, in an environment of its own, so that all tables come from one commit whatever is built
meanwhile: one root, one tag. Everything is below the root: `clone/`, `results/` (what `paperbench reproduce --export` writes after
each entry), `queue.json` (how each entry stands), `queue.log`, and `logs/` with the output of each entry. It takes one core, at the
lowest priority.

The queue may be stopped or killed at any time: the same command goes on, and runs continue from their checkpoints. `--pause` has
the runs save and end while the speed of something else is measured; `--resume` goes on. What failed is tried again when the queue
is started anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from paperbench.engine.files import write_json
from paperbench.engine.lock import FileLock
from paperbench.engine.signals import StopFlag
from paperbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, ConfigError, EnvironmentError_, PaperbenchError

LIST = Path(__file__).with_suffix(".yaml")
REPOSITORY = Path(__file__).resolve().parents[1]
NICENESS = 19
MOST_KILLS = 3
"""Kills of an entry in a row, as when memory runs out, before the queue goes on with the next one."""
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_FOR_AN_ORPHAN = 600.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One call of `paperbench reproduce`."""

    part: str
    table: str
    scale: str = "paper"
    seeds: int | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    stacked: bool = False

    def arguments(self) -> list[str]:
        """Return the arguments of `paperbench`."""
        return [
            "reproduce", self.table, *self.overrides, "--scale", self.scale,
            *(["--seeds", str(self.seeds)] if self.seeds else []),
            *(text for row in self.rows for text in ("--row", row)),
            *(text for column in self.columns for text in ("--column", column)),
            *(["--stacked"] if self.stacked else []),
        ]  # fmt: skip

    @property
    def name(self) -> str:
        """The command, for people and as the entry's name in `queue.json`."""
        return " ".join(f'"{text}"' if " " in text else text for text in self.arguments()[1:])


def read_list(file: Path = LIST) -> list[Entry]:
    """Return the entries of a list in its order. Raises `ConfigError` for one that is none."""
    found = []
    for part, entries in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items():
        for entry in entries:
            values: dict[str, Any] = {
                key: tuple(map(str, value)) if isinstance(value, list) else value for key, value in entry.items()
            }
            try:
                found.append(Entry(part=str(part), **values))
            except TypeError as error:
                raise ConfigError(f"{file}: {entry}: {error}") from error
    return found


# --- the folder -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Root:
    """The files of a queue."""

    path: Path

    @property
    def clone(self) -> Path:
        return self.path / "clone"

    @property
    def program(self) -> Path:
        return self.clone / ".venv" / "bin" / "paperbench"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def stop(self) -> Path:
        """A file that asks the queue to stop."""
        return self.path / "stop"

    @property
    def pause(self) -> Path:
        """A file that asks it to wait for as long as it is there."""
        return self.path / "pause"

    @property
    def lock(self) -> FileLock:
        return FileLock(self.path / "queue.lock")

    def say(self, text: str) -> None:
        """Write a line into the log, and print it."""
        line = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {text}"
        with (self.path / "queue.log").open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        print(line, flush=True)

    def states(self) -> dict[str, dict[str, Any]]:
        """How each entry stands, by its name."""
        try:
            return json.loads((self.path / "queue.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def update(self, name: str, **changes: Any) -> None:
        states = self.states()
        states[name] = {**states.get(name, {}), **changes}
        write_json(self.path / "queue.json", states)


# --- the clone --------------------------------------------------------------------------------------------------------


def prepare_clone(root: Root, tag: str, source: Path) -> None:
    """Make the clone at `tag` with its environment, or check that it is there. Raises `ConfigError` for that of another commit."""
    commit = _git(source, "rev-parse", "--verify", f"{tag}^{{commit}}")
    if not root.clone.is_dir():
        root.say(f"cloning {source} at {tag} ({commit[:7]})")
        unfinished = root.path / "clone.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _git(source, "clone", "--quiet", "--no-checkout", "--no-local", str(source), str(unfinished))
        _git(unfinished, "checkout", "--quiet", "--detach", commit)
        if (source / "uv.lock").is_file():
            shutil.copy2(source / "uv.lock", unfinished)  # the versions that are known to work here
        unfinished.rename(root.clone)
    found = _git(root.clone, "rev-parse", "HEAD")
    if found != commit:
        raise ConfigError(
            f"{root.clone} is at {found[:7]}, and {tag} is {commit[:7]}: tables of one folder come from one commit; "
            "name another --root"
        )
    if changes := _git(root.clone, "status", "--porcelain"):
        raise ConfigError(f"{root.clone} was changed, so that its tables would not be those of {tag}:\n{changes}")
    if not root.program.is_file():
        root.say("making its environment")
        command = [*_uv(), "sync", "--quiet", "--no-default-groups"]
        done = subprocess.run(command, cwd=root.clone, env=_environment(None), check=False)
        if done.returncode or not root.program.is_file():
            raise EnvironmentError_(f"`{' '.join(command)}` failed in {root.clone} (exit code {done.returncode})")


def _uv() -> list[str]:
    return ["uv"] if shutil.which("uv") else [sys.executable, "-m", "uv"]


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _environment(data: Path | None) -> dict[str, str]:
    """Return the environment of the clone's programs: none of this program's own."""
    mine = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PAPERBENCH_DATA", "UV_PROJECT_ENVIRONMENT")
    kept = {name: value for name, value in os.environ.items() if name not in mine}
    return {**kept, **ONE_THREAD, **({"PAPERBENCH_DATA": str(data)} if data else {})}


# --- the work ---------------------------------------------------------------------------------------------------------


@dataclass
class Queue:
    """Works through the entries. `program` is what is started: the clone's `paperbench`."""

    root: Root
    entries: Sequence[Entry]
    program: Sequence[str]
    data: Path | None = None
    folder: Path | None = None
    """Where the program is started: the clone."""
    stop: StopFlag = field(default_factory=StopFlag)

    def work(self) -> int:
        """Return the exit code: 0 all done, 1 some failed, 3 stopped. Raises `EnvironmentError_` if an orphan does not end."""
        self._end_orphan()
        self.root.stop.unlink(missing_ok=True)
        _use_one_core()
        failed = False
        for entry in self.entries:
            if self.root.states().get(entry.name, {}).get("state") == "done":
                continue
            state = self._make(entry)
            if state == "stopped":
                self.root.say("stopped; the same command goes on")
                return EXIT_STOPPED
            failed = failed or state != "done"
        self.root.say("the list is done" + (", but for what failed" if failed else ""))
        return EXIT_FAILED if failed else EXIT_DONE

    def _make(self, entry: Entry) -> str:
        """Make one entry, through pauses and kills, and return how it ended: `done`, `failed` or `stopped`."""
        kills = 0
        while True:
            if not self._wait_while_paused():
                return "stopped"
            code, asked = self._session(entry)
            if code == EXIT_DONE:
                self.root.update(entry.name, state="done")
                self.root.say(f"done: {entry.name}")
                return "done"
            if asked == "pause":
                self.root.update(entry.name, state="paused")
                continue
            if asked == "stop":
                self.root.update(entry.name, state="stopped")
                return "stopped"
            kills = kills + 1 if code < 0 or code == EXIT_STOPPED else MOST_KILLS
            how = f"was ended from outside ({code})" if kills < MOST_KILLS else f"failed (exit code {code})"
            self.root.say(f"{how}: {entry.name}; see {self._log(entry)}")
            if kills >= MOST_KILLS:
                self.root.update(entry.name, state="failed")
                return "failed"

    def _session(self, entry: Entry) -> tuple[int, str]:
        """Run the entry's command until it ends, or until it was asked to: its exit code, and what was asked for."""
        states = self.root.states().get(entry.name, {})
        again = ["--retry-failed"] if states.get("state") == "failed" else []
        command = [*self.program, *entry.arguments(), *again, "--export", str(self.root.results)]
        self.root.say(f"begins: {entry.name}")
        began = time.monotonic()
        log = self._log(entry)
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=_environment(self.data), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.root.update(
            entry.name, state="running", process=process.pid, process_start=_start_of(process.pid),
            sessions=states.get("sessions", 0) + 1,
        )  # fmt: skip
        asked = ""
        while process.poll() is None:
            if not asked:
                asked = "stop" if self._asked_to_stop() else "pause" if self.root.pause.exists() else ""
                if asked:
                    self.root.say(f"asked to {asked}: the run saves and ends")
                    process.terminate()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        seconds = round(states.get("seconds", 0) + time.monotonic() - began, 1)
        self.root.update(entry.name, seconds=seconds, exit_code=process.returncode, process=None)
        return process.returncode, asked

    def _wait_while_paused(self) -> bool:
        """Return when there is no pause, with False if the queue is to stop."""
        if self.root.pause.exists() and not self._asked_to_stop():
            self.root.say("paused")
            while self.root.pause.exists() and not self._asked_to_stop():
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        return not self._asked_to_stop()

    def _asked_to_stop(self) -> bool:
        return bool(self.stop) or self.root.stop.exists()

    def _end_orphan(self) -> None:
        """Have the command of a queue that was killed save and end."""
        for name, state in self.root.states().items():
            pid = state.get("process")
            if not pid or _start_of(pid) != state.get("process_start") or not _is_alive(pid):
                continue
            self.root.say(f"a queue was killed while this ran, it is asked to save and end: {name} (process {pid})")
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + _SECONDS_FOR_AN_ORPHAN
            while _is_alive(pid) and _start_of(pid) == state.get("process_start"):
                if time.monotonic() > deadline:
                    raise EnvironmentError_(f"process {pid} ({name}) does not end; end it, then start the queue again")
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _log(self, entry: Entry) -> Path:
        safe = "".join(char if char.isalnum() or char in ".-" else "_" for char in entry.name)
        return self.root.path / "logs" / f"{safe}.log"


def _use_one_core() -> None:
    """Keep to the last core, at the lowest priority; so does what is started from here, which counts its cores."""
    if hasattr(os, "nice"):
        os.nice(max(0, NICENESS - os.nice(0)))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _start_of(pid: int) -> str:
    """Return what tells a process from a later one of the same number, where the system says it; empty elsewhere."""
    try:
        state, *_, start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else start


# --- commands ---------------------------------------------------------------------------------------------------------


def print_status(root: Root, entries: Sequence[Entry]) -> None:
    """Print how every entry stands."""
    at_work = root.lock.is_held()
    print(f"{root.path}: {'paused' if root.pause.exists() else 'at work' if at_work else 'not at work'}")
    states = root.states()
    for entry in entries:
        state: Mapping[str, Any] = states.get(entry.name, {})
        shown = state.get("state", "to do")
        if shown == "running" and not at_work:
            shown = "killed"
        print(f"  {entry.part}  {shown:8} {state.get('seconds', 0) / 3600:6.2f} h  {entry.name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _main(options)
    except PaperbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _main(options: argparse.Namespace) -> int:
    root = Root(options.root.expanduser().absolute())
    entries = [entry for entry in read_list(options.list_file) if not options.part or entry.part in options.part]
    if options.list:
        for entry in entries:
            print(f"{entry.part}  paperbench reproduce {entry.name}")
        return EXIT_DONE
    root.path.mkdir(parents=True, exist_ok=True)
    if options.status:
        print_status(root, entries)
    elif options.stop:
        root.stop.touch()
    elif options.pause:
        root.pause.touch()
    elif options.resume:
        root.pause.unlink(missing_ok=True)
    else:
        return _work(root, entries, options)
    return EXIT_DONE


def _work(root: Root, entries: Sequence[Entry], options: argparse.Namespace) -> int:
    if not options.tag:
        raise ConfigError("--tag TAG names the commit that the tables are made from")
    data = options.data.expanduser().absolute() if options.data else None
    lock = root.lock
    if not lock.acquire():
        raise ConfigError(f"{root.path} has a queue at work ({lock.holder()}): --status shows it, --stop ends it")
    try:
        with StopFlag() as stop:
            prepare_clone(root, options.tag, options.source)
            queue = Queue(root, entries, [str(root.program)], data=data, folder=root.clone, stop=stop)
            return queue.work()
    finally:
        lock.release()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the queue")
    parser.add_argument("--tag", metavar="TAG", help="tag, or any commit, to make the tables from")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--part", action="append", metavar="PART", help="only this part of the list; may be repeated")
    parser.add_argument("--source", type=Path, default=REPOSITORY, metavar="DIR", help="repository to clone")
    parser.add_argument("--list-file", type=Path, default=LIST, metavar="FILE", help="the list; default queue.yaml")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="print the commands")
    action.add_argument("--status", action="store_true", help="print how each entry stands")
    action.add_argument("--stop", action="store_true", help="have the runs save, and the queue end")
    action.add_argument("--pause", action="store_true", help="have the runs save, and the queue wait")
    action.add_argument("--resume", action="store_true", help="end the pause")
    return parser


if __name__ == "__main__":
    sys.exit(main())
