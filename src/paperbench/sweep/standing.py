"""Where a member of a sweep stands, read from the files of its run alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paperbench.engine.rundir import DONE, FAILED, STOPPED, WAITING, RunDirectory
from paperbench.errors import EXIT_ENVIRONMENT

State = Literal["to do", "continues", "running", "failed", "done"]
LOG_LINES = 12


@dataclass(frozen=True, kw_only=True)
class Standing:
    """`to do`: not begun; `continues`: stopped or killed, at `step` of `steps`; `running`: some process is at work there."""

    state: State
    step: int = 0
    steps: int = 0
    best: float | None = None
    seconds: float = 0.0
    """The run's own time so far, over all its sessions."""
    message: str = ""
    error: str = ""
    exit_code: int | None = None
    results: dict[str, Any] | None = None
    killed: bool = False
    """Of one that continues: it ended without a word."""

    @property
    def by_environment(self) -> bool:
        """Failed for want of a disk, a device or data, which somebody may have mended since."""
        return self.state == "failed" and self.exit_code == EXIT_ENVIRONMENT


def standing(directory: Path) -> Standing:
    """How the run in `directory`, which need not exist, stands at this moment."""
    run = RunDirectory(directory)
    if not run.config_file.is_file():
        return Standing(state="to do")
    # The lock first: a run that ends between the two looks is then seen as running, and looked at again.
    locked = run.is_locked()
    results = run.results()
    done = results is not None and results.get("status") == DONE and not locked
    status = run.status()
    best = status.get("best")
    state = _state(str(status.get("state", "")), done=done, locked=locked)
    return Standing(
        state=state,
        step=int(status.get("step") or 0),
        steps=int(status.get("steps") or 0),
        best=float(best) if isinstance(best, int | float) else None,
        seconds=float(status.get("seconds") or 0.0),
        message=str(status.get("message") or ""),
        error=str(status.get("error") or ""),
        exit_code=status.get("exit_code"),
        results=results if done else None,
        killed=state == "continues" and status.get("state") != STOPPED,
    )


def _state(recorded: str, *, done: bool, locked: bool) -> State:
    if done:
        return "done"
    if locked:
        return "running"
    if recorded == FAILED:
        return "failed"
    return "to do" if recorded == WAITING else "continues"


def log_tail(directory: Path, lines: int = LOG_LINES) -> tuple[str, ...]:
    """The last lines of the run's log; none where there is no log."""
    try:
        with RunDirectory(directory).log_file.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 200 * lines))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]
