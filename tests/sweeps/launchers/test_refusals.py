"""Messages that sbatch of Slurm 22.05 printed, with accounting for those of a QOS, and some that its source has."""

from __future__ import annotations

import pytest

from paperbench.sweeps.launchers.refusals import Refused, kind_of

FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (FAILED + "Unable to contact slurm controller (connect failure)", "unreachable"),
        (FAILED + "Socket timed out on send/recv operation", "unreachable"),
        (FAILED + "Zero Bytes were transmitted or received", "unreachable"),
        (FAILED + "Slurm backup controller in standby mode", "unreachable"),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", "limit"),
        (FAILED + "Resource temporarily unavailable", "limit"),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + FAILED + "Job violates accounting/QOS policy (job submit limit, "
         "user's size and/or time limits)", "limit"),
        ("sbatch: error: AssocMaxSubmitJobLimit\n" + FAILED + "Job violates accounting/QOS policy (job submit limit, user's "
         "size and/or time limits)", "limit"),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit\n" + FAILED + "Job violates accounting/QOS policy (job submit limit, "
         "user's size and/or time limits)", "final"),
        (FAILED + "Invalid job array specification", "array"),
        ("sbatch: error: invalid partition specified: nowhere\n" + FAILED + "Invalid partition name specified", "final"),
        ("sbatch: error: CPU count per node can not be satisfied\n" + FAILED + "Requested node configuration is not "
         "available", "final"),
        ("sbatch: error: Memory specification can not be satisfied\n" + FAILED + "Requested node configuration is not "
         "available", "final"),
        ("sbatch: error: Invalid generic resource (gres) specification", "final"),
        (FAILED + "Invalid feature specification", "final"),
        (FAILED + "Invalid qos specification", "final"),
        (FAILED + "Invalid account or account/partition combination specified", "final"),
        ("", "final"),
    ],
)  # fmt: skip
def test_the_kind_of_a_refusal(said: str, kind: str) -> None:
    assert kind_of(said) == kind
    assert Refused(said).kind == kind
