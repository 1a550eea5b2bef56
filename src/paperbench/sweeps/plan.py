"""From requests to members to a sweep: every run composed, checked and given its directory, before anything is written.

Imports no torch by itself; the tasks' own checks may.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import cast

from paperbench.catalog import TASKS
from paperbench.config import _hydra
from paperbench.config.commands import command
from paperbench.config.compose import Composed, compose
from paperbench.config.paths import options, search_path
from paperbench.config.validate import config_hash, incidental
from paperbench.engine import torchrun
from paperbench.engine.claims import refuse_other
from paperbench.engine.task import Stacks, task_module
from paperbench.errors import ConfigError, PaperbenchError

HASH_DIGITS = 12
"""Hexadecimal digits of `config_hash` that name a run's directory."""
MOST_RUNS = 10_000
_QUOTED = re.compile(r' \(given as "[^"]*"\)')


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run that is wanted. `labels` are what tells it from the others, as typed: swept key to value."""

    experiment: str
    overrides: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a sweep: `directory` is `<output.root>/<experiment>/<hash>`, `hash` the first digits of `config_hash`."""

    request: Request
    composed: Composed
    hash: str
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Runs that belong together. The same runs have the same `id`, so that a command given again finds its sweep."""

    name: str
    id: str
    directory: Path
    """Holds the record `sweep.json`, `events.jsonl` and the sweep's lock; made when the first run starts."""
    members: tuple[Member, ...]
    kind: str = "sweep"
    overrides: tuple[str, ...] = ()
    """As typed, unexpanded."""
    launcher: str = "local"
    settings: tuple[str, ...] = ()
    """Settings of the launcher, `launcher.KEY=VALUE` as typed."""
    preview: tuple[str, ...] = ()
    """Of a dry run: lines about the jobs that the launcher would submit. Not recorded."""


# --- requests ---------------------------------------------------------------------------------------------------------


def expand(experiment: str, overrides: Sequence[str], *, conf_dir: Path | None = None) -> list[Request]:
    """Expand overrides in Hydra's choice and range syntax into requests, the last key running fastest.

    `key=a,b`, `key=choice(a,b)`, `key=range(0,3)` and `group=glob(*)` are expanded; everything else goes to every request as
    it is. Raises `ConfigError` with every override that cannot be expanded.
    """
    requests, mistakes = _expanded(experiment, overrides, conf_dir)
    if mistakes:
        raise ConfigError(*mistakes)
    return requests


def _expanded(experiment: str, overrides: Sequence[str], conf_dir: Path | None) -> tuple[list[Request], list[str]]:
    """The requests of the overrides that can be expanded, and what is wrong with the others."""
    mistakes: list[str] = []
    choices: list[list[tuple[str, str | None]]] = []
    """For each override the texts it stands for, each with its label; None where there is but one."""
    for text in overrides:
        try:
            choices.append(_alternatives(text, conf_dir))
        except ConfigError as error:
            mistakes.extend(error.mistakes)
    count = prod(map(len, choices))
    if count > MOST_RUNS:
        return [], [*mistakes, f"{' '.join(overrides)}: {count:,} runs, and a sweep takes {MOST_RUNS:,} at most"]
    requests = []
    for combination in itertools.product(*choices):
        texts = tuple(text for text, _ in combination)
        labels = {_key(text): label for text, label in combination if label is not None}
        requests.append(Request(experiment=experiment, overrides=texts, labels=labels))
    return requests, mistakes


def _alternatives(text: str, conf_dir: Path | None) -> list[tuple[str, str | None]]:
    override = _hydra.parse(text)
    if not override.sweeps:
        return [(text, None)]
    if incidental(override.key, hashed=False):
        raise ConfigError(f"{text}: {override.key} changes no result, so the runs would be one and the same")
    values = _hydra.alternatives(text, lambda group: options(group, search_path(conf_dir)), most=MOST_RUNS + 1)
    typed = text.partition("=")[0]
    return [(f"{typed}={value}", value) for value in dict.fromkeys(values)]


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+")


def plan_overrides(
    experiment: str,
    overrides: Sequence[str],
    *,
    conf_dir: Path | None = None,
    on_composed: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """Expand, compose and plan in one, so that one error names the mistakes that any of them finds."""
    requests, mistakes = _expanded(experiment, overrides, conf_dir)
    on_composed = None if mistakes else on_composed
    planned = None
    try:
        if requests:
            planned = plan(compose_members(requests, conf_dir), overrides=overrides, on_composed=on_composed)
    except ConfigError as error:
        raise ConfigError(*mistakes, *error.mistakes) from None
    if planned is None or mistakes:
        raise ConfigError(*mistakes)
    return planned


# --- members and sweeps ------------------------------------------------------------------------------------------------


def compose_members(requests: Sequence[Request], conf_dir: Path | None = None) -> list[Member]:
    """Compose every request, once, in order.

    Raises one `ConfigError` with the mistakes of all of them, each said once.
    """
    faults: list[PaperbenchError] = []
    members: list[Member] = []
    with _hydra.remembered():
        for request in requests:
            try:
                members.append(_member(request, conf_dir))
            except PaperbenchError as error:
                faults.append(error)
    if faults:
        raise _joined(faults)
    return members


def plan(
    members: Sequence[Member],
    *,
    directory: Path | None = None,
    name: str | None = None,
    kind: str = "sweep",
    overrides: Sequence[str] = (),
    on_composed: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """Check composed members and put them together; members of one configuration become the first of them.

    `directory` is the sweep's folder, by default `<output.root>/<experiment>/sweeps/<id>`; `name` is the first member's
    experiment unless given, and `overrides` were typed by a person. Nothing is written. `on_composed` is called before the tasks
    are asked what they refuse: that imports them, which takes seconds. Raises one `ConfigError` with the refusals of all runs,
    each said once, or another error if all of them are of its kind.
    """
    if not members:
        raise ConfigError("a sweep of no runs")
    by_hash: dict[str, Member] = {}
    for member in members:
        by_hash.setdefault(member.hash, member)
    distinct = tuple(by_hash.values())
    first, identity = distinct[0], sweep_id(distinct)
    root = Path(first.composed.resolved["output"]["root"])
    sweep = Sweep(
        name=name or first.request.experiment,
        id=identity,
        directory=directory or root / first.request.experiment / "sweeps" / identity,
        members=distinct,
        kind=kind,
        overrides=tuple(overrides),
    )
    if on_composed is not None:
        on_composed(sweep)
    if faults := _refusals(distinct):
        raise _joined(faults)
    return sweep


def _member(request: Request, conf_dir: Path | None) -> Member:
    """Raises `ConfigError` for a request that no run can be made of."""
    composed = compose(request.experiment, _without_checkpoint(request), conf_dir=conf_dir)
    if composed.task.takes_checkpoint:
        raise ConfigError(
            f"{request.experiment}: task {composed.task.name} evaluates a trained run, one at a time: "
            f"`{command('eval', request.experiment, 'checkpoint=RUN')}`"
        )
    return member_of(request, composed)


def member_of(request: Request, composed: Composed) -> Member:
    """The member that a composed request is, with the directory that its hash gives it."""
    digits = config_hash(composed.resolved)[:HASH_DIGITS]
    root = Path(composed.resolved["output"]["root"])
    return Member(
        request=request, composed=composed, hash=digits, directory=root / (composed.experiment or "run") / digits
    )


def _without_checkpoint(request: Request) -> tuple[str, ...]:
    """`checkpoint=` is a key of evaluations alone, whose configuration is not composed but taken from the run."""
    for text in request.overrides:
        if _key(text) == "checkpoint":
            raise ConfigError(
                f"{text}: a sweep trains, and every trained run is evaluated at its end; "
                f"`{command('eval', request.experiment, text)}` evaluates one again"
            )
    return request.overrides


def _refusals(members: Sequence[Member]) -> list[PaperbenchError]:
    """Find what is wrong beyond the configuration: what the tasks refuse, and directories that hold another run.

    A task is asked once for what differs in the seed or the optimizer alone.
    """
    faults: list[PaperbenchError] = []
    asked: set[str] = set()
    for member in members:
        about = {
            key: value for key, value in member.composed.resolved.items() if key not in ("seed", "optim", "output")
        }
        question = json.dumps(about, sort_keys=True)
        try:
            if question not in asked:
                asked.add(question)
                task = task_module(member.composed.task)
                torchrun.require(member.composed.config.nproc)
                task.plan(member.composed.config)
            if (member.directory / "config.yaml").is_file():
                refuse_other(member.directory, member.composed.resolved)
        except PaperbenchError as error:
            faults.append(error)
    return faults


def _joined(faults: Sequence[PaperbenchError]) -> PaperbenchError:
    """Join faults into one error with each mistake once; of faults of one kind, an error of that kind."""
    said: dict[str, str] = {}
    """By the text without the override that it quotes: the same mistake in several runs is one."""
    for fault in faults:
        for text in fault.mistakes if isinstance(fault, ConfigError) else [str(fault)]:
            said.setdefault(_QUOTED.sub("", text), text)
    kind = type(faults[0])
    if any(type(fault) is not kind for fault in faults) or kind is ConfigError:
        return ConfigError(*said.values())
    return kind("\n".join(said.values()))


def sweep_id(members: Sequence[Member]) -> str:
    """Return the identity of a set of runs: the same for the same runs in any order."""
    text = "\n".join(sorted(member.hash for member in members))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


# --- jobs -------------------------------------------------------------------------------------------------------------


def jobs_of(members: Sequence[Member], *, stacked: bool) -> list[tuple[Member, ...]]:
    """Group members into jobs: each by itself or, `stacked`, those together that their task can train stacked, order kept.

    Raises `ConfigError` when `stacked` is asked of a task that cannot.
    """
    if not stacked:
        return [(member,) for member in members]
    unable = dict.fromkeys(m.composed.task.name for m in members if not m.composed.task.stacks)
    if unable:
        able = ", ".join(spec.name for spec in TASKS.values() if spec.stacks) or "none"
        raise ConfigError(
            f"--stacked: task {', '.join(unable)} cannot train several runs stacked. Tasks that can: {able}"
        )
    groups: dict[Hashable, list[Member]] = {}
    for number, member in enumerate(members):
        groups.setdefault(_stack_key(member) or number, []).append(member)
    return [tuple(group) for group in groups.values()]


def _stack_key(member: Member) -> Hashable | None:
    """Return a key that runs which may share a process have in common: the task's own, and the machine's settings."""
    config = member.composed.config
    task = cast(Stacks, task_module(member.composed.task))
    key = task.stack_key(config)
    if key is None or config.nproc > 1:
        return None
    return member.composed.task.name, key, config.device, config.precision, config.threads
