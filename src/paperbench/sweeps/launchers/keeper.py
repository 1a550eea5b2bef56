"""A run of `--launcher ray` that outlives the Ray worker that started it, for as long as it needs to save.

Ray kills its worker and the children of that worker with SIGKILL when the sweep dies, and nothing would be saved. The run is
therefore the child of a keeper, a process in a session of its own that no Ray process is the parent of. A pipe connects keeper
and Ray worker: when its other end is closed, which the death of the Ray worker does, the keeper asks the run to save and end.

The sweep stops a run through a file, as it does under Slurm (`cluster.read_order`): `ray.cancel` raises an exception in the
Ray worker, anywhere: one that falls into a destructor is lost for good, since Ray does not ask a second time, and one that falls
into Ray's own code after the run has ended takes the worker along. The keeper therefore also writes the exit code into a file.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from paperbench.engine.files import write_atomic
from paperbench.sweeps.launchers.orders import KILL, STOP, read_order

_SECONDS_BETWEEN_LOOKS = 0.1


class KeptRun:
    """The Ray worker's end: entered, it starts the keeper; `wait` returns the run's exit code; left, it lets go of the run.

    While it is entered, SIGINT, which is how `ray.cancel` arrives, asks the run to save and end, and raises nothing.
    """

    def __init__(self, arguments: Sequence[str], *, folder: str, environment: Mapping[str, str], order: Path) -> None:
        """`arguments` are those of `paperbench.sweeps.worker`, `order` is the file with the sweep's orders."""
        self._arguments = arguments
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._order = order
        self._requests = self._replies = -1

    def __enter__(self) -> Self:
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        command = [sys.executable, "-m", __name__, str(requests), str(replies), str(self._order), *self._arguments]
        self._handler: Any = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            subprocess.run(
                command,
                check=True,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(requests, replies),
            )
        except BaseException:
            self.__exit__()
            raise
        finally:
            os.close(requests)
            os.close(replies)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._handler)
        os.close(self._requests)
        os.close(self._replies)

    def wait(self) -> int | None:
        """Return the exit code, or minus the signal that killed the run; None if the keeper itself was killed."""
        reply = b""
        while not reply.endswith(b"\n"):
            read = os.read(self._replies, 64)
            if not read:
                return None
            reply += read
        return int(reply)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        os.write(self._requests, b"s")


# --- the keeper ---------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> None:
    """Start the run in a process of its own and return at once; there, do not return before the run has ended."""
    requests, replies, order, *worker = arguments
    if os.fork():
        return
    os.setsid()
    command = [sys.executable, "-m", "paperbench.sweeps.worker", "--parent", str(os.getpid()), *worker]
    run = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    code, open_ = _watch(run, int(requests), Path(order))
    if open_:  # else Ray may have started the task again, whose exit code this is not
        with suppress(OSError):
            write_atomic(code_file(Path(order)), str(code))
    with suppress(BrokenPipeError):  # nobody is there to read it; the run's own files say everything
        os.write(int(replies), f"{code}\n".encode())
    os._exit(0)


def code_file(order: Path) -> Path:
    """Return the file in which a keeper writes down the exit code of its run."""
    return order.with_suffix(".code")


def _watch(run: subprocess.Popen[bytes], requests: int, order: Path) -> tuple[int, bool]:
    """Wait for the end of the run, passing on what the pipe and the file say.

    Return its exit code, and True if the Ray worker still lives.
    """
    asked, open_ = False, True
    while (code := run.poll()) is None:
        wanted = read_order(order)
        if open_ and select.select([requests], [], [], _SECONDS_BETWEEN_LOOKS)[0]:
            open_ = bool(os.read(requests, 64))
            wanted = wanted or STOP
        if wanted == KILL:
            run.kill()
        elif wanted == STOP and not asked:  # a second SIGTERM would end the run before it has saved
            run.terminate()
            asked = True
        if not open_ or asked:
            with suppress(subprocess.TimeoutExpired):
                run.wait(_SECONDS_BETWEEN_LOOKS)
    return code, open_


if __name__ == "__main__":
    main(sys.argv[1:])
