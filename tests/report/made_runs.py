"""Runs of a reproduction as they would stand on disk after training, made in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from paperbench.engine.rundir import DONE, FAILED, RunDirectory
from paperbench.records.record import read_status
from paperbench.report.judgement import reference, shipped_config
from paperbench.report.preparing import Prepared
from paperbench.report.published import find
from paperbench.sweeps.plan import Member
from paperbench.sweeps.watch import MemberStatus


def paper_config(paper: str, table: str, row: str, column: str) -> dict[str, Any]:
    """The shipped configuration at the paper's scale that makes a published number."""
    found = reference(find(paper, table, row, column), "paper")
    assert found is not None
    return deepcopy(dict(shipped_config(found.cell)))


def finish(member: Member, metrics: Mapping[str, float]) -> None:
    """A run that is done, with these metrics."""
    resolved = member.composed.resolved
    directory = RunDirectory.create("", member.request.experiment, resolved, member.directory)
    directory.write_results(config=resolved, metrics=metrics, data="made data", device="cpu", precision="float32")
    directory.update_status(state=DONE, exit_code=0)
    directory.release()


def fail(member: Member, message: str) -> None:
    """A run that failed."""
    directory = RunDirectory.create("", member.request.experiment, member.composed.resolved, member.directory)
    directory.update_status(state=FAILED, message=message, error="TrainingError", exit_code=1)
    directory.write_log(f"the log says {message}")
    directory.release()


def results_of(prepared: Prepared) -> list[MemberStatus]:
    """How the runs stand, as a sweep that starts nothing would tell."""
    found = []
    for member in prepared.sweep.members:
        now = read_status(member.directory)
        state = now.state if now.state in ("done", "failed") else "not started"
        found.append(MemberStatus(member=member, state=state, results=now.results, message=now.message))
    return found
