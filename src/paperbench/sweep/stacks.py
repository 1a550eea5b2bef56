"""Which members of a sweep share a job."""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Sequence
from typing import cast

from paperbench.catalog import TASKS
from paperbench.engine.task import Stacks
from paperbench.errors import ConfigError
from paperbench.sweep.plan import Member


def grouped(members: Sequence[Member], *, stacked: bool) -> list[tuple[Member, ...]]:
    """Each member a job of its own; or, `stacked`, those together that their task can train side by side, order kept.

    Raises `ConfigError` when `stacked` is asked of a task that cannot.
    """
    if not stacked:
        return [(member,) for member in members]
    unable = dict.fromkeys(m.composed.task.name for m in members if not m.composed.task.stacks)
    if unable:
        able = ", ".join(spec.name for spec in TASKS.values() if spec.stacks) or "none"
        raise ConfigError(
            f"--stacked: task {', '.join(unable)} cannot train several runs side by side. Tasks that can: {able}"
        )
    groups: dict[Hashable, list[Member]] = {}
    for number, member in enumerate(members):
        groups.setdefault(_key(member) or number, []).append(member)
    return [tuple(group) for group in groups.values()]


def _key(member: Member) -> Hashable | None:
    """What runs that share a process have in common: the task's own key, and the machine's settings."""
    config = member.composed.config
    task = cast(Stacks, importlib.import_module(member.composed.task.module))
    key = task.stack_key(config)
    if key is None or config.nproc > 1:
        return None
    return member.composed.task.name, key, config.device, config.precision, config.threads
