"""The page of a sweep."""

from __future__ import annotations

import shlex

from paperbench.report.html.page import Fact, Notice, Page, Section
from paperbench.report.html.quantities import Quantities
from paperbench.report.html.runs_sections import badges_of, data_of, facts_of, sections_of_runs
from paperbench.runs.sweeps import SweepRecord


def page_of_sweep(sweep: SweepRecord, quantities: Quantities) -> Page:
    """What was varied and what came of it; the runs' own pages hold the rest."""
    sections, left_out = sections_of_runs(sweep.runs, quantities)
    if not sweep.runs:
        sections = [Section(slug="runs", title="Runs", blocks=(Notice(text="The sweep has no runs.", tone="muted"),))]
    command = shlex.join(["paperbench", "sweep", sweep.experiment, *sweep.overrides]) if sweep.experiment else ""
    facts = facts_of(sweep.runs)
    if command:
        facts.append(Fact(name="command", text=command, code=True))
    return Page(
        subject="sweep",
        title=sweep.name,
        lead=data_of(sweep.runs),
        badges=badges_of(sweep.runs),
        facts=tuple(facts),
        sections=tuple(sections),
        source=str(sweep.directory),
        left_out=left_out,
    )
