"""A sweep on a real Slurm that keeps accounts: what they know of a job that died before its run began."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import accounting
from tests.clusters.slurm import Slurm, why_not
from tests.clusters.sweeps import Folder
from tests.loopback import loopback_only

_REASON = why_not() or accounting.why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(bool(_REASON), reason=_REASON or "there is a Slurm with accounts"),
]


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    with loopback_only():
        # Slurm finds even 127.0.0.1 through getaddrinfo's AI_ADDRCONFIG, which wants an address that is no loopback's.
        subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True, timeout=10)
        with Slurm(accounting.Accounting()) as slurm:
            yield slurm


def test_the_accounts_say_how_a_job_ended_that_left_no_log(slurm: Slurm, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    folder = Folder(tmp_path / "work", slurm.environment)
    settings = ("launcher.threads=1", "launcher.poll_seconds=0.5", "launcher.minutes=10")
    # Sixty megabytes that are really used, long enough to be seen by Slurm, which looks once a second.
    setup = (
        "launcher.setup=['python3 -c \"import time; used = bytearray(b'*') * 60_000_000; time.sleep(4)\"', 'exit 7']"
    )
    code, said = folder.run("sweep", "counter", "seed=0", setup.replace("b'*'", "42 .to_bytes()"), *settings,
                            "--launcher", "slurm", "--conf-dir", "conf")  # fmt: skip
    assert code == 1, said
    assert "exit code 7:0" in said
    assert "of memory at most" in said
