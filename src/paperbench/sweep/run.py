"""The scheduler: keeps `jobs` runs going until every member of a sweep has ended, and believes only the runs' own files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from paperbench.engine.signals import StopFlag
from paperbench.sweep.launchers.base import Launcher
from paperbench.sweep.plan import Member, Sweep

MemberState = Literal["done", "failed", "stopped", "not started"]


@dataclass(frozen=True, kw_only=True)
class MemberResult:
    """How a member stands at the end. `reused`: it was so before; `results`: the content of results.json if it is done."""

    member: Member
    state: MemberState
    results: dict[str, Any] | None = None
    message: str = ""
    log_tail: tuple[str, ...] = ()
    reused: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """`exit_code`: 0 all done, 1 some failed, 3 stopped, 4 the environment ended it."""

    members: tuple[MemberResult, ...]
    exit_code: int


def run(
    sweep: Sweep,
    *,
    launcher: Launcher,
    jobs: int,
    watcher: Any,
    stop: StopFlag,
    retry_failed: bool = False,
    fail_fast: bool = False,
    stacked: bool = False,
) -> SweepOutcome:
    """Does what is missing of the sweep."""
    raise NotImplementedError
