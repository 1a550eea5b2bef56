"""A Slurm of one machine: a controller and two virtual nodes of two CPUs, on the loopback alone. Needs root, Slurm and munge."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Protocol

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONFIGURATION = """\
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={run}/munge.socket
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool.%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.%n.pid
SlurmctldLogFile={run}/slurmctld.log
SlurmdLogFile={run}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2,defer
ReturnToService=2
MessageTimeout=3
JobRequeue=1
MaxArraySize={max_array_size}
MaxJobCount={max_job_count}
MinJobAge={min_job_age}
{accounting}NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""

_NO_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
"""


def why_not() -> str:
    """The reason why no Slurm can be started here, or the empty string."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "a Slurm of one's own needs root"


class Accounting(Protocol):
    """What the controller writes its jobs into."""

    def configuration(self, run: Path, port: int) -> str:
        """The lines of slurm.conf."""
        ...

    def __call__(self, run: Path, port: int) -> AbstractContextManager[None]:
        """Start it, with its files in the folder `run`."""
        ...


class Slurm:
    """Started by entering it, and ended by leaving it."""

    def __init__(self, accounting: Accounting | None = None) -> None:
        self.run = Path(tempfile.mkdtemp(prefix="slurm-"))
        self._accounting = accounting
        self._to_leave = ExitStack()
        self.environment = {"SLURM_CONF": str(self.run / "slurm.conf"), "PATH": PATH}
        self._ports = _free_ports(4)

    def __enter__(self) -> Slurm:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        (self.run / "state").mkdir()
        self.configure()
        key = self.run / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        names = ("socket", "pid-file", "log-file", "seed-file")
        files = [f"--{name}={self.run}/munge.{name.partition('-')[0]}" for name in names]
        self.command("munged", "--force", f"--key-file={key}", *files)
        if self._accounting is not None:
            self._to_leave.enter_context(self._accounting(self.run, self._ports[3]))
        self.start_controller()
        for node in ("n1", "n2"):
            (self.run / f"spool.{node}").mkdir()
            self.command("slurmd", "-N", node)
        self.until(lambda: self.command("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * 2)

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.SubprocessError, AssertionError):
            self.clear()
        for name in ("slurmd.n1", "slurmd.n2", "slurmctld"):
            self._end(name)
        self._to_leave.close()
        self._end("munge")
        shutil.rmtree(self.run, ignore_errors=True)

    def clear(self) -> None:
        """Cancel all jobs, and wait for their ends; what is completing for long, its controller having been away, is forgotten."""
        if not self.queue():
            return
        self.command("scancel", "--user=root")
        try:
            self.until(lambda: not self.queue(), seconds=8)
        except AssertionError:
            self.stop_controller()
            self.start_controller(clean=True)

    def configure(self, *, max_array_size: int = 1001, max_job_count: int = 2000, min_job_age: int = 300) -> None:
        """Write slurm.conf; a controller that runs must be restarted."""
        text = CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            run=self.run,
            ports=self._ports,
            max_array_size=max_array_size,
            max_job_count=max_job_count,
            min_job_age=min_job_age,
            accounting=self._accounting.configuration(self.run, self._ports[3]) if self._accounting else _NO_ACCOUNTING,
        )
        (self.run / "slurm.conf").write_text(text)

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def start_controller(self, *, clean: bool = False) -> None:
        """Start it; `clean`: without the state that it saved."""
        self.command("slurmctld", *(["-c"] if clean else []))
        self.until(self.answers)

    def answers(self) -> bool:
        try:
            self.command("squeue")
        except subprocess.SubprocessError:
            return False
        return True

    def command(self, *words: str) -> str:
        """The output of a command."""
        return subprocess.run(
            words, env={**os.environ, **self.environment}, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def queue(self) -> list[list[str]]:
        """Id, state, node and reason of each job that has not ended."""
        lines = self.command("squeue", "--noheader", "--array", "--format=%i|%T|%N|%r").splitlines()
        return [line.split("|") for line in lines]

    def until(self, condition: object, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def _end(self, name: str) -> None:
        try:
            pid = int((self.run / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGTERM)
        except (OSError, ValueError):
            return
        with suppress(AssertionError):
            self.until(lambda: not Path(f"/proc/{pid}").exists(), seconds=10)
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
