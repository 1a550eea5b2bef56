"""What it means when `sbatch` does not take a job, by its own messages (Slurm 22.05 to 24.11)."""

from __future__ import annotations

import re
from typing import Literal

from paperbench.errors import EnvironmentError_

Kind = Literal["unreachable", "limit", "array", "final"]
"""`unreachable`: the controller does not answer. `limit`: too many jobs at present. `array`: too many jobs in one array.
`final`: this job, as it is, is never going to be taken."""

RETRIES = re.compile(r"sleeping and retrying|temporarily disabled, retrying")
"""Said by sbatch before it waits for minutes by itself."""

_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("array", re.compile(r"Invalid job array specification|job array.*(too large|exceeds)", re.IGNORECASE)),
    (
        "limit",
        # QOS and association limits on the number of jobs submitted; those on the size of one job (MaxWall, MaxCpus,
        # MaxNodePerJob …) stand and do not pass.
        re.compile(
            r"\b(QOS|Assoc)\w*(MaxSubmit|GrpSubmit|MaxJobs|GrpJobs)\w*|temporarily unable to accept job|job queue full"
            r"|Job creation temporarily disabled|Resource temporarily unavailable|Too many jobs|[Rr]ate limit",
            re.IGNORECASE,
        ),
    ),
    (
        "unreachable",
        re.compile(
            r"Unable to contact slurm controller|Zero Bytes were transmitted|Socket timed out|standby mode"
            r"|Connection (refused|reset|timed out)|connect failure|communication connection failure"
            r"|Transport endpoint|Slurm controller.*not respond|slurmdbd.*(not respond|unavailable)"
            r"|Munge .*(socket|connect)|authentication.*(expired|rewound)",
            re.IGNORECASE,
        ),
    ),
)


def kind_of(text: str) -> Kind:
    """Return the kind of a refusal by sbatch's messages."""
    for kind, pattern in _KINDS:
        if pattern.search(text):
            return kind
    return "final"


class Refused(EnvironmentError_):
    """sbatch did not take the jobs; `kind` says if it may do so later."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split()) or "sbatch said nothing"
        self.kind = kind_of(text)
        super().__init__(f"Slurm refused the jobs: {self.text}; the settings are launcher.KEY=VALUE")
