"""A run's directory: its files, its lock, and how each file is written. Imports no torch.

Files: `config.yaml` (resolved; workers read only this), `status.json`, `metrics.jsonl`, `results.json`, `env.json`,
`log.txt`, `checkpoints/`, `figures/`, and `lock`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from paperbench.config.commands import command
from paperbench.config.paths import refuse_reserved
from paperbench.engine.files import explain_os_errors, write_atomic, write_json
from paperbench.engine.lock import FileLock
from paperbench.engine.outputs import refuse_run_folder
from paperbench.errors import ConfigError, EnvironmentError_, RunLockedError

SCHEMA_VERSION = 1
RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"
WAITING = "waiting"
"""Created for a sweep, not started yet."""
KILLED = "killed"
"""The `current_state` of a run whose status is `running` while no process holds its lock; never written to disk."""


class RunDirectory:
    """One run on disk. `create` makes a new one and holds its lock; `open` reads an existing one without locking it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(path / "lock")
        self._status: dict[str, Any] = {}
        self._session_began = time.monotonic()
        self._seconds_before = 0.0

    # --- where things are ---------------------------------------------------------------------------------------------

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def results_file(self) -> Path:
        return self.path / "results.json"

    @property
    def env_file(self) -> Path:
        return self.path / "env.json"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    # --- making and opening -------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, root: Path | str, experiment: str, resolved_config: Mapping[str, Any], run_dir: Path | str | None = None
    ) -> RunDirectory:
        """Make `root/<experiment>/<YYYYmmdd-HHMMSS>-<4 hex>/`, or `run_dir`, and return it locked.

        Raises `ConfigError` when `run_dir` holds something, `RunLockedError` when another process is at work there, and
        `EnvironmentError_` when the place cannot be written; a half-created directory is removed again.
        """
        if run_dir is None:
            stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
            path = Path(root) / (experiment or "run") / f"{stamp}-{secrets.token_hex(2)}"
            refuse_reserved(path, f"output.root={root}")
            refuse_run_folder(Path(root), f"output.root={root}")
            _refuse_undecodable(path)
        else:
            path = Path(run_dir)
            cls.refuse_unusable(path)
        with _remove_on_failure(path):
            with explain_os_errors(path):
                path.mkdir(parents=True, exist_ok=run_dir is not None)
            directory = cls(path)
            directory._refuse_content()
            directory.acquire()
            try:
                # Looked at again under the lock: two processes may have found the same folder empty.
                directory._refuse_content()
                directory._write_first(resolved_config)
            except BaseException:
                directory.release()
                raise
        return directory

    @classmethod
    def refuse_unusable(cls, path: Path) -> None:
        """Raise the error of `create` for a `run_dir` that can be told before anything is made: of a dry run, for instance."""
        refuse_reserved(path, f"--run-dir {path}")
        _refuse_undecodable(path)
        with explain_os_errors(path):
            if path.exists() and not path.is_dir():
                raise EnvironmentError_(f"the run directory {path} is a file; choose another --run-dir")
        if path.is_symlink() and not path.exists():
            raise EnvironmentError_(f"the run directory {path} is a link to nothing; choose another --run-dir")
        refuse_run_folder(path, f"--run-dir {path}")
        if path.exists():
            cls(path)._refuse_content()

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """An existing run. Raises `ConfigError` when there is none at `path`."""
        path = Path(path)
        if not path.is_dir():
            raise ConfigError(f"there is no run directory {path}; `paperbench runs` lists the runs there are")
        directory = cls(path)
        if not directory.config_file.is_file():
            raise ConfigError(
                f"{path} is not a run directory: it has no config.yaml; `paperbench runs` lists the runs there are"
            )
        directory.begin_session()
        return directory

    def begin_session(self) -> None:
        """Read the status anew and count the seconds of a session from here: after waiting for another process."""
        self._status = self.status()
        self._seconds_before = float(self._status.get("seconds") or 0.0)
        self._session_began = time.monotonic()

    def _write_first(self, resolved_config: Mapping[str, Any]) -> None:
        try:
            text = yaml.safe_dump(dict(resolved_config), sort_keys=False, allow_unicode=True)
            write_atomic(self.config_file, text)
            self.update_status(state=RUNNING, step=0, steps=0, best=None, message="")
        except BaseException:
            for file in (self.status_file, self.config_file, self.lock.path):
                with suppress(OSError):
                    file.unlink()
            raise

    def _refuse_content(self) -> None:
        with explain_os_errors(self.path):
            held = sorted(entry.name for entry in self.path.iterdir() if entry.name != "lock")
        if not held:
            return
        if "config.yaml" in held:
            raise ConfigError(
                f"{self.path} already holds a run; `{command('resume', self.path)}` continues it, "
                "another --run-dir starts a new one"
            )
        raise ConfigError(f"{self.path} is not empty (it holds {held[0]}); choose an empty or new --run-dir")

    # --- the lock -----------------------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Hold the run for this process until `release` or its death. Raises `RunLockedError` naming the holder."""
        if not self.lock.acquire():
            raise RunLockedError(
                f"{self.path} is in use by {self.lock.holder()}; wait for it, stop it, or choose another --run-dir"
            )

    def release(self) -> None:
        """Release the lock, if held."""
        self.lock.release()

    def is_locked(self) -> bool:
        """Return True if some process, this one included, is at work here."""
        return self.lock.is_held()

    # --- what is in it ------------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """The resolved configuration as written. Raises `ConfigError` when the file is damaged."""
        try:
            value = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read {self.config_file}: {error}") from error
        if not isinstance(value, dict):
            raise ConfigError(f"{self.config_file} holds no configuration; start the run anew")
        return value

    def refuse_loss(self) -> None:
        """Raise `EnvironmentError_` where the run's folder has gone from its place while a process worked in it."""
        if not self.config_file.exists():
            raise EnvironmentError_(
                f"{self.path} is gone: it was removed or moved while the run worked in it. Where it was moved to, `paperbench "
                "resume` continues it from its last checkpoint; otherwise start it anew"
            )

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty when there is none that can be read."""
        return _read_json(self.status_file)

    def current_state(self) -> str:
        """`waiting`, `running`, `done`, `failed` or `stopped`; `killed` for a status `running` that no process stands behind."""
        state = str(self.status().get("state", KILLED))
        return KILLED if state == RUNNING and not self.is_locked() else state

    def lost_progress(self) -> tuple[int, bool]:
        """Return the step that the status names where no checkpoint is there to continue from, and True if one had been saved.

        (0, False) for every other run.
        """
        status = self.status()
        step = status.get("step")
        if not isinstance(step, int) or step <= 0 or any(self.checkpoints.rglob("*.pt")):
            return 0, False
        return step, bool(status.get("saved"))

    def environment(self) -> dict[str, Any]:
        """The content of env.json; empty when there is none that can be read."""
        return _read_json(self.env_file)

    def results(self) -> dict[str, Any] | None:
        """The content of results.json, or None before the run is done."""
        return _read_json(self.results_file) or None

    def update_status(self, **changes: Any) -> None:
        """Write status.json with `changes` on top of what it held: state, step, steps, best, message, error, exit_code."""
        self._status.update(changes)
        self._status.update(
            pid=os.getpid(),
            host=socket.gethostname(),
            updated=datetime.now().astimezone().isoformat(timespec="seconds"),
            seconds=round(self.seconds(), 3),
        )
        write_json(self.status_file, self._status)

    def write_rank_failure(self, **failure: Any) -> None:
        """Record why a rank above 0 failed: status.json is rank 0's alone to write."""
        write_json(self._rank_failure_file, failure)

    def rank_failure(self) -> dict[str, Any]:
        """Return the failure that a rank above 0 recorded in this session: message, error and exit_code; empty if none did."""
        return _read_json(self._rank_failure_file)

    def clear_rank_failure(self) -> None:
        """Remove what an earlier session recorded."""
        self._rank_failure_file.unlink(missing_ok=True)

    @property
    def _rank_failure_file(self) -> Path:
        return self.path / ".rank-failure.json"

    def seconds(self) -> float:
        """Wall time of the run until now, sessions before a resume included."""
        return self._seconds_before + time.monotonic() - self._session_began

    def write_results(
        self,
        *,
        config: Mapping[str, Any],
        metrics: Mapping[str, float],
        data: str,
        device: str,
        precision: str,
        status: str = DONE,
        stacked: int = 1,
        departures: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Write results.json and return its content. Metrics are flat; one that is not finite becomes null.

        departures: what the files of the data set have other than the published ones.

        stacked: runs that were stacked in one process; the seconds are then those of all together, and the file says how many
        there were.
        """
        results = {
            "schema_version": SCHEMA_VERSION,
            "experiment": config.get("experiment", ""),
            "task": config.get("task", ""),
            "scale": config.get("scale", ""),
            "seed": config.get("seed", 0),
            "status": status,
            "data": data,
            **({"data_departures": list(departures)} if departures else {}),
            "metrics": {name: value if isinstance(value, int) else float(value) for name, value in metrics.items()},
            "seconds": round(self.seconds(), 3),
            "device": device,
            "precision": precision,
            **({"stacked": stacked} if stacked > 1 else {}),
        }
        write_json(self.results_file, results)
        return _read_json(self.results_file)

    def write_environment(self, facts: Mapping[str, Any]) -> None:
        """Write env.json; those of later sessions are appended to its list `resumed`."""
        earlier = _read_json(self.env_file)
        if earlier:
            earlier.setdefault("resumed", []).append(dict(facts))
        write_json(self.env_file, earlier or dict(facts))

    def write_log(self, text: str) -> None:
        """Append to log.txt, each call stamped with the time. Never fails a run: a log is not worth that."""
        stamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError), self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {text.rstrip()}\n")


def _refuse_undecodable(path: Path) -> None:
    """Raise `ConfigError` for a name that is not text: the run's own files are to name it, and they are UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise ConfigError(f"{shown}: the name is not text in UTF-8; choose another --run-dir or output.root") from None


@contextmanager
def _remove_on_failure(path: Path) -> Iterator[None]:
    """Remove `path` and the parents created for it when the body fails, unless they existed before."""
    existed = path.exists()
    created = [parent for parent in path.parents if not parent.exists()]
    try:
        yield
    except (ConfigError, RunLockedError):
        raise  # another process works in there
    except BaseException:
        if not existed:
            shutil.rmtree(path, ignore_errors=True)
            for parent in created:
                with suppress(OSError):
                    parent.rmdir()
        raise


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def refuse_losses(directories: Sequence[RunDirectory], error: BaseException) -> None:
    """Raise an error that says so where a run's folder is gone; what else went wrong, `error`, followed from it."""
    for directory in directories:
        try:
            directory.refuse_loss()
        except EnvironmentError_ as lost:
            raise lost from error
