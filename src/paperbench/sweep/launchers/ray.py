"""`--launcher ray`: runs as tasks of a Ray cluster that is running already.

One task a run. Ray starts a task again elsewhere when its node dies, and the run continues there from its checkpoint, which
lies on a file system that all nodes share. When the sweep dies, Ray ends its tasks; their runs save, and the same command
given again continues them.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import Field

from paperbench.config.schema import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Schema
from paperbench.errors import EXIT_STOPPED, EnvironmentError_
from paperbench.sweep.launchers.base import EVERYTHING, Context, Ending, Job, ending_of
from paperbench.sweep.launchers.cluster import arguments_of, library, needs_of
from paperbench.sweep.launchers.ray_task import work

_START_ONE = (
    "start one with `ray start --head` on this machine and `ray start --address=THIS_MACHINE:6379` on the others, or name it "
    "with launcher.address=HOST:PORT"
)

_SECONDS_BETWEEN_CANCELS = 5.0


@dataclass(kw_only=True)
class RaySettings(Schema):
    """Which cluster, and what each run asks of it."""

    address: Annotated[str, Field(pattern=r"^(auto|[^:/\s]+:\d+)$", description="auto or HOST:PORT")] = "auto"
    threads: PositiveInt = 4
    """CPUs for each process of a run; the `threads` of its configuration come first."""
    gpus: NonNegativeFloat = 0.0
    """For each process of a run; a fraction lets runs share a GPU."""
    resources: dict[str, PositiveFloat] = field(default_factory=dict)
    retries: NonNegativeInt = 20
    """Times that Ray starts a run again after its node was lost."""
    autoscaling: bool = False
    """The cluster starts nodes when a run needs one: wait, where no node is large enough yet."""
    environment: dict[str, str] = field(default_factory=dict)


class RayLauncher:
    """Submits one task a job; see `base.Launcher`."""

    Settings: ClassVar[type] = RaySettings
    DEFAULT_JOBS: ClassVar[int] = EVERYTHING

    def __init__(self, settings: RaySettings, context: Context) -> None:
        self._ray = library("ray", _load)
        self._settings = settings
        _connect(self._ray, settings.address, f"paperbench-{context.name}")
        self._task = self._ray.remote(work)
        self._handles: list[RayHandle] = []

    def submit(self, job: Job) -> RayHandle:
        """Hands the job to Ray. Raises `EnvironmentError_` if no node of the cluster could ever hold it."""
        needs = needs_of(job, self._settings.threads)
        amounts = {"CPU": float(needs.cpus), "GPU": self._settings.gpus * needs.processes, **self._settings.resources}
        self._refuse_what_fits_nowhere(amounts)
        reference = self._task.options(
            name=job.name,
            num_cpus=amounts["CPU"],
            num_gpus=amounts["GPU"],
            resources=self._settings.resources,
            max_retries=self._settings.retries,
            retry_exceptions=False,
        ).remote(arguments_of(job, needs), str(Path.cwd()), dict(self._settings.environment))
        handle = RayHandle(self._ray, reference)
        self._handles.append(handle)
        return handle

    def wait(self, seconds: float) -> None:
        """Returns when a task ended, or after `seconds`."""
        self._handles = [handle for handle in self._handles if not handle.ended]
        if not self._handles:
            time.sleep(seconds)
            return
        self._ray.wait([handle.reference for handle in self._handles], num_returns=1, timeout=seconds)

    def close(self) -> None:
        """Leaves the cluster, which ends what still runs there."""
        self._ray.shutdown()

    def _refuse_what_fits_nowhere(self, amounts: Mapping[str, float]) -> None:
        if self._settings.autoscaling:
            return
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in amounts.items()) for node in nodes):
            return
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount)
        there = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in amounts) for node in nodes)
        raise EnvironmentError_(
            f"--launcher ray: a run asks for {wanted}, and no node of the cluster has that (they have: {there}); give less with "
            "launcher.threads= and launcher.gpus=, or launcher.autoscaling=true where nodes are started on demand"
        )


class RayHandle:
    """One task; see `base.Handle`."""

    def __init__(self, ray: ModuleType, reference: Any) -> None:
        self.reference = reference
        self._ray = ray
        self._stopping = False
        self._force = False
        self._cancelled = 0.0
        self._ending: Ending | None = None

    @property
    def ended(self) -> bool:
        """Whether `poll` has given an ending."""
        return self._ending is not None

    def poll(self) -> Ending | None:
        if self._ending is None:
            ready, _ = self._ray.wait([self.reference], timeout=0)
            if ready:
                self._ending = self._read()
            elif self._stopping and time.monotonic() - self._cancelled > _SECONDS_BETWEEN_CANCELS:
                self._cancel()
        return self._ending

    def stop(self) -> None:
        if not self._stopping and self._ending is None:
            self._cancel()

    def kill(self) -> None:
        if self._ending is None:
            self._force = True
            self._cancel()

    def _cancel(self) -> None:
        """Ray interrupts whatever Python is doing at that moment in the worker, where it can be lost: `poll` asks again."""
        self._stopping = True
        self._cancelled = time.monotonic()
        self._ray.cancel(self.reference, force=self._force)

    def _read(self) -> Ending:
        errors = self._ray.exceptions
        try:
            return ending_of(self._ray.get(self.reference))
        except errors.TaskCancelledError:
            return Ending(exit_code=EXIT_STOPPED, signal=None, reason="withdrawn")
        except errors.RayError as error:
            if self._stopping:
                return Ending(exit_code=None, signal=int(signal.SIGKILL), reason="killed")
            said = str(error).strip().splitlines()
            return Ending(exit_code=None, signal=None, reason=f"Ray: {said[-1] if said else type(error).__name__}")


def _load() -> ModuleType:
    import ray
    import ray.exceptions

    return ray


def _connect(ray: ModuleType, address: str, namespace: str) -> None:
    """Joins the cluster as a driver. Raises `EnvironmentError_` where there is none."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise EnvironmentError_(
                f"--launcher ray: no Ray cluster answers at {address} ({error}); {_START_ONE}"
            ) from None
    try:
        with _sigterm_kept():
            # What the cluster has to say about its nodes would be printed to stdout, among the sweep's own lines.
            ray._private.worker._worker_logs_enabled = False
            # Under `uv run`, Ray would upload this folder and build a new environment from it on every node. The nodes have
            # paperbench installed, and the runs shall be made by that.
            ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
            ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise EnvironmentError_(
            f"--launcher ray: this machine is part of no running Ray cluster; {_START_ONE}"
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())
        raise EnvironmentError_(f"--launcher ray: cannot join the cluster at {address}: {said}") from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """`ray.init` makes SIGTERM end the process; the sweep wants to stop its runs first."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
