"""Slurm's accounting: its daemon and a database, which listens on a socket file alone. Needs root, slurmdbd and MariaDB.

The daemon listens on every interface: it belongs into a network namespace that has only the loopback.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.clusters.slurm import PATH

_PROGRAMS = ("slurmdbd", "sacct", "mariadbd", "mariadb-install-db", "mariadb", "ip")

_DAEMON = """\
AuthType=auth/munge
AuthInfo=socket={run}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={run}/slurmdbd.log
PidFile={run}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounts
"""

_CONFIGURATION = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={run}/munge.socket
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
"""


def why_not() -> str:
    """The reason why no accounting can be started here, or the empty string."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"Slurm's accounting is not installed: no {', '.join(missing)}" if missing else ""


class Accounting:
    """See `slurm.Accounting`."""

    def configuration(self, run: Path, port: int) -> str:
        return _CONFIGURATION.format(run=run, port=port)

    def __call__(self, run: Path, port: int) -> AbstractContextManager[None]:
        return _accounting(run, port)


@contextmanager
def _accounting(run: Path, port: int) -> Iterator[None]:
    """Database and daemon, their files in `run`, where munge's socket already is."""
    data, file = run / "database", run / "mariadb.socket"
    environment = {**os.environ, "PATH": PATH, "MYSQL_UNIX_PORT": str(file)}

    def call(*words: str) -> None:
        subprocess.run(words, env=environment, check=True, capture_output=True, timeout=120)

    call(
        "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}",
        "--auth-root-authentication-method=normal", "--skip-test-db",
    )  # fmt: skip
    words = ("--no-defaults", "--user=root", f"--datadir={data}", f"--socket={file}", "--skip-networking")
    with (run / "mariadb.log").open("wb") as log:
        database = subprocess.Popen(["mariadbd", *words], env=environment, stdout=log, stderr=log)
    try:
        _until_it_works(lambda: call("mariadb", "--no-defaults", "--user=root", "--execute=create database accounts"))
        settings = run / "slurmdbd.conf"
        settings.write_text(_DAEMON.format(run=run, port=port))
        settings.chmod(0o600)
        daemon_environment = {**environment, "SLURM_CONF": str(run / "slurm.conf")}
        with (run / "slurmdbd.out").open("wb") as log:
            daemon = subprocess.Popen(["slurmdbd", "-D"], env=daemon_environment, stdout=log, stderr=log)
        try:
            # A controller that does not find it at its very first start ends.
            _until_it_works(lambda: socket.create_connection(("127.0.0.1", port)).close())
            yield
        finally:
            daemon.terminate()
            daemon.wait(60)
    finally:
        database.terminate()
        database.wait(60)


def _until_it_works(call: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except (subprocess.CalledProcessError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
