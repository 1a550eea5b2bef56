"""`--launcher ray`: runs as tasks of a running Ray cluster.

One task a run. Ray starts a task again elsewhere when its node dies, and the run continues there from its checkpoint, which
lies on a file system that all nodes share. When the sweep dies, Ray ends its tasks; their runs, which no process of Ray is the
parent of (`keeper`), save and end, and the same command continues them.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import Field

from paperbench.config.schema import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Schema
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.errors import EXIT_ENVIRONMENT, EXIT_STOPPED, EnvironmentError_
from paperbench.records.place import Place, read_place
from paperbench.sweeps.launchers.base import UNLIMITED, Context, ExitStatus, Job, LauncherLost, RunRefused
from paperbench.sweeps.launchers.cluster import import_library, resources_of, worker_arguments
from paperbench.sweeps.launchers.keeper import KeptRun, code_file
from paperbench.sweeps.launchers.orders import KILL, STOP, order_file, read_order

_HOW_TO_START = (
    "start one with `ray start --head` on this machine and `ray start --address=THIS_MACHINE:6379` on the others, or name it "
    "with launcher.address=HOST:PORT"
)

_SECONDS_BETWEEN_CANCELS = 5.0
_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_TO_JOIN = 60.0
_DIGITS_OF_A_DRIVER = 8
_SECONDS_OF_SILENCE = 30.0
"""Of the head, before the cluster counts as gone. Ray itself ends the process after 60 s, in the middle of anything."""


@dataclass(kw_only=True)
class RaySettings(Schema):
    """The address of the cluster, and the resources of each run."""

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
    """One Ray task for each job; see `base.Launcher`."""

    Settings: ClassVar[type] = RaySettings
    DEFAULT_JOBS: ClassVar[int] = UNLIMITED

    def __init__(self, settings: RaySettings, context: Context) -> None:
        self._ray = import_library("ray", _load)
        self._settings = settings
        self._folder = context.directory / "launcher"
        _connect(self._ray, settings.address, f"paperbench-{context.name}")
        self._head = Head(self._ray.get_runtime_context().gcs_address)
        self._task = self._ray.remote(run_task)
        self._resources_read_at = float("-inf")
        self._nodes: dict[str, str] = {}
        self._free: list[Mapping[str, float]] = []
        self._look_at_resources()
        self._handles: list[RayHandle] = []

    def submit(self, job: Job) -> RayHandle:
        """Submit the job to Ray. Raises `RunRefused` if no node of the cluster could ever hold it."""
        resources = resources_of(job, self._settings.threads)
        amounts = {
            "CPU": float(resources.cpus),
            "GPU": self._settings.gpus * resources.processes,
            **self._settings.resources,
        }
        self._check_that_it_fits(amounts)
        order = self._new_order(job)
        reference = self._task.options(
            name=job.name,
            num_cpus=amounts["CPU"],
            num_gpus=amounts["GPU"],
            resources=self._settings.resources,
            max_retries=self._settings.retries,
            retry_exceptions=False,
        ).remote(worker_arguments(job, resources), str(Path.cwd()), dict(self._settings.environment), str(order))
        handle = RayHandle(self._ray, reference, order, launcher=self, amounts=amounts)
        self._handles.append(handle)
        return handle

    def is_elsewhere(self, job: Job) -> bool:
        """Return True while a task that another sweep submitted for one of the runs waits or works."""
        places = [place for directory in job.directories if (place := read_place(directory)) is not None]
        # The name of a task ends with that of the driver it dies with.
        drivers = {place.job[-_DIGITS_OF_A_DRIVER:] for place in places if place.job}
        drivers.discard(self._ray.get_runtime_context().get_job_id())
        if not drivers or self._head.silent:
            return False
        return not drivers.isdisjoint(row["JobID"] for row in self._ray._private.state.jobs() if not row["IsDead"])

    def wait(self, seconds: float) -> None:
        """Return when a task ended, or after `seconds`. Raises `LauncherLost` when the head has been silent for long."""
        self._head.check()
        self._look_at_resources()
        self._handles = [handle for handle in self._handles if handle.exit_status is None]
        if not self._handles:
            time.sleep(seconds)
            return
        self._ray.wait([handle.reference for handle in self._handles], num_returns=1, timeout=seconds)

    def close(self) -> None:
        """Leave the cluster, which ends the tasks that still run."""
        if self._head.lost:
            self._head.leave()
        else:
            self._ray.shutdown()

    def _new_order(self, job: Job) -> Path:
        """Return the file for orders to the job, without an order that an earlier sweep gave."""
        order = order_file(self._folder, job)
        with explain_os_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            order.unlink(missing_ok=True)
            node_file(order).unlink(missing_ok=True)
            code_file(order).unlink(missing_ok=True)
        return order

    def _look_at_resources(self) -> None:
        """Read, every few seconds, the nodes that live and what is free on them."""
        if time.monotonic() - self._resources_read_at < _SECONDS_BETWEEN_LOOKS or self._head.silent:
            return
        self._resources_read_at = time.monotonic()
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        self._nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes}
        free = self._ray._private.state.available_resources_per_node()
        self._free = [free.get(node["NodeID"], {}) for node in nodes]

    def node_name(self, node_id: str) -> str | None:
        """Return the name of a node that lives, else None."""
        if node_id not in self._nodes:  # it may have joined since
            self._look_at_resources()
        return self._nodes.get(node_id)

    def shortage(self, amounts: Mapping[str, float]) -> str:
        """Return why a task that asks for these amounts has not begun."""
        return shortage(amounts, self._free)

    def _check_that_it_fits(self, amounts: Mapping[str, float]) -> None:
        if self._settings.autoscaling:
            return
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in amounts.items()) for node in nodes):
            return
        request = ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount)
        available = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in amounts) for node in nodes)
        raise RunRefused(
            f"--launcher ray: a run asks for {request}, and no node of the cluster has that (they have: {available}); give less "
            "with launcher.threads= and launcher.gpus=, or launcher.autoscaling=true where nodes are started on demand"
        )


class Head:
    """The process of the cluster without which nothing goes on (the GCS), at `address`, `HOST:PORT`."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._checked_at = self._heard_at = time.monotonic()
        self.lost = False

    @property
    def silent(self) -> bool:
        """True if it did not answer when it was last asked."""
        return self._checked_at > self._heard_at

    def check(self) -> None:
        """Ask it, every few seconds. Raises `LauncherLost` when it has not answered for long."""
        if time.monotonic() - self._checked_at < _SECONDS_BETWEEN_LOOKS:
            return
        try:
            socket.create_connection(self._address, timeout=_SECONDS_BETWEEN_LOOKS).close()
        except OSError as error:
            self._checked_at = time.monotonic()
            if self._checked_at - self._heard_at > _SECONDS_OF_SILENCE:
                self.lost = True
                raise LauncherLost(
                    f"--launcher ray: the head of the Ray cluster at {':'.join(map(str, self._address))} has not answered "
                    f"for {_SECONDS_OF_SILENCE:.0f} s ({error}); its runs save and end. Start Ray again, then the same "
                    "command continues them"
                ) from None
        else:
            self._checked_at = self._heard_at = time.monotonic()

    def leave(self) -> None:
        """Have this process end without Ray's leave-taking from a head that is gone, which is a segmentation fault."""
        import ray._private.worker as worker

        atexit.unregister(worker.shutdown)
        atexit.register(_exit_at_once)


def _exit_at_once() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(EXIT_ENVIRONMENT)


class RayHandle:
    """One task; see `base.Handle`. It is asked to end through its order, and withdrawn through Ray if it has not begun."""

    def __init__(
        self,
        ray: ModuleType,
        reference: Any,
        order: Path,
        *,
        launcher: RayLauncher | None = None,
        amounts: Mapping[str, float] | None = None,
    ) -> None:
        self.reference = reference
        self._order = order
        self._launcher = launcher
        self._amounts = amounts or {}
        self._ray = ray
        self._stopping = False
        self._force = False
        self._cancelled_at = 0.0
        self.exit_status: ExitStatus | None = None

    def poll(self) -> ExitStatus | None:
        if self.exit_status is None:
            ready, _ = self._ray.wait([self.reference], timeout=0)
            if ready:
                self.exit_status = self._read_status()
            elif self._stopping and time.monotonic() - self._cancelled_at > _SECONDS_BETWEEN_CANCELS:
                self._cancel()
        return self.exit_status

    def place(self) -> Place | None:
        """Return the node that the task wrote down when it began, or what it waits for."""
        if self.exit_status is not None or self._launcher is None:
            return None
        job = str(self.reference.task_id().hex()) if hasattr(self.reference, "task_id") else ""
        node_id = read_order(node_file(self._order))
        if not node_id:
            return Place(state="queued", job=job, reason=self._launcher.shortage(self._amounts))
        node = self._launcher.node_name(node_id)
        if node is None:
            return Place(state="requeued", job=job, reason="its node was lost")
        return Place(state="running", job=job, node=node)

    def stop(self) -> None:
        if not self._stopping and self.exit_status is None:
            write_atomic(self._order, STOP)
            self._cancel()

    def kill(self) -> None:
        if self.exit_status is None:
            self._force = True
            write_atomic(self._order, KILL)
            self._cancel()

    def _cancel(self) -> None:
        """Withdraw the task, should it wait; Ray may lose this, so `poll` asks again.

        One that runs reads its order: an exception of Ray's, raised in it while it ends, would hide how it ended.
        """
        self._stopping = True
        self._cancelled_at = time.monotonic()
        place = self.place()
        if self._force or place is None or place.state != "running":
            self._ray.cancel(self.reference, force=self._force)

    def _read_status(self) -> ExitStatus:
        errors = self._ray.exceptions
        try:
            code = self._ray.get(self.reference)
            if code is None:
                return ExitStatus(exit_code=None, signal=None, reason="the keeper of the run was killed", lost=True)
            return ExitStatus.from_code(code)
        except errors.RayError as error:
            if code := read_order(code_file(self._order)):  # the run had ended before Ray's worker did
                return ExitStatus.from_code(int(code))
            if isinstance(error, errors.TaskCancelledError) and not self._force:
                return ExitStatus(exit_code=EXIT_STOPPED, signal=None, reason="withdrawn")
            if self._force:
                return ExitStatus(exit_code=None, signal=int(signal.SIGKILL), reason="killed")
            lines = str(error).strip().splitlines()
            return ExitStatus(
                exit_code=None, signal=None, reason=f"Ray: {lines[-1] if lines else type(error).__name__}"
            )


def run_task(arguments: Sequence[str], folder: str, environment: Mapping[str, str], order: str) -> int | None:
    """Do a job in a Ray worker: return the exit code of the run, started in `folder`, or minus the signal that killed it.

    None if the process between this one and the run was killed. The run saves and ends when the file `order` says so, when Ray
    cancels the task, or when this process dies.
    """
    if read_order(Path(order)):
        return EXIT_STOPPED
    code_file(Path(order)).unlink(missing_ok=True)  # of an earlier attempt, whose worker died in the moment of its end
    _note_node(Path(order))
    with KeptRun(arguments, folder=folder, environment=environment, order=Path(order)) as run:
        return run.wait()


def shortage(amounts: Mapping[str, float], free: Sequence[Mapping[str, float]]) -> str:
    """Return why a task has not begun, such as `waits for 4 CPU, 1 GPU on one node; at most 2 CPU, 1 GPU are free on one`.

    amounts: of each resource, what the task asks for; free: what each node has left of it.
    """
    wanted = {name: amount for name, amount in amounts.items() if amount}
    if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in free):
        return "Ray is starting a process for it"
    asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    most = ", ".join(f"{max((node.get(name, 0) for node in free), default=0):g} {name}" for name in wanted)
    return f"waits for {asked} on one node; at most {most} are free on one"


def node_file(order: Path) -> Path:
    """Return the file in which a task writes down the node that it runs on."""
    return order.with_suffix(".node")


def _note_node(order: Path) -> None:
    """Write down the node of this process; outside Ray, nothing."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        write_atomic(node_file(order), ray.get_runtime_context().get_node_id())


# --- the cluster ------------------------------------------------------------------------------------------------------


def _load() -> ModuleType:
    import ray
    import ray.exceptions

    return ray


def _connect(ray: ModuleType, address: str, namespace: str) -> None:
    """Join the cluster as a driver. Raises `EnvironmentError_` where there is none."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise EnvironmentError_(
                f"--launcher ray: no Ray cluster answers at {address} ({error}); {_HOW_TO_START}"
            ) from None
    _probe(ray, address)
    try:
        with _sigterm_handler_restored():
            # Messages of the cluster about its nodes would be printed to stdout, among the sweep's own lines.
            ray._private.worker._worker_logs_enabled = False
            # Under `uv run`, Ray would upload this folder and build a new environment from it on every node. The nodes have
            # paperbench installed, and the runs shall use that.
            ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
            ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise EnvironmentError_(
            f"--launcher ray: this machine is part of no running Ray cluster; {_HOW_TO_START}"
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        text = " ".join(str(error).split())
        raise EnvironmentError_(f"--launcher ray: cannot join the cluster at {address}: {text}") from error


def _probe(ray: ModuleType, address: str) -> None:
    """Raise `EnvironmentError_` where a cluster's head takes connections and does not answer: `ray.init` would try for ever."""
    try:
        found = ray._private.services.canonicalize_bootstrap_address_or_die(address)
    except ConnectionError:
        return  # there is no cluster, as `ray.init` is going to say

    def ask() -> None:
        with suppress(Exception):  # what is wrong, `ray.init` says; and after the time is over nobody listens any more
            ray._raylet.GcsClient(address=found)

    answer = threading.Thread(target=ask, daemon=True)
    answer.start()
    answer.join(_SECONDS_TO_JOIN)
    if answer.is_alive():
        raise EnvironmentError_(
            f"--launcher ray: the head of the Ray cluster at {found} does not answer within {_SECONDS_TO_JOIN:.0f} s; "
            "restart it with `ray stop` and `ray start --head`"
        )


@contextmanager
def _sigterm_handler_restored() -> Iterator[None]:
    """Undo the handler of `ray.init`, which makes SIGTERM end the process: the sweep stops its runs first."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
