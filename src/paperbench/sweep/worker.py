"""One job of a sweep: `python -m paperbench.sweep.worker [--threads N] RUN_DIR…` does or continues the run or runs.

Every launcher starts it, as a process or by calling `main`. It reads nothing but the directories' own files, and writes
nothing but these: what a run says goes to its `log.txt`, how far it is to `.progress.json`. A run that is done already is
left as it is; one that another process works in is waited for. Several directories are trained side by side
(`engine.stacked.execute_stacked`).
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from paperbench.engine.claims import claim
from paperbench.engine.launch import proceed
from paperbench.engine.reporter import Reporter
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, PaperbenchError
from paperbench.sweep.progress import ProgressFile

_PR_SET_PDEATHSIG = 1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(arguments: Sequence[str], *, watch_parent: bool = True) -> int:
    """Does the job and returns its exit code; a failure is recorded in the directory it belongs to, and never raised.

    `watch_parent`: the death of the process that started this one asks for a stop, like SIGTERM.
    """
    parser = argparse.ArgumentParser(prog="paperbench.sweep.worker")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the job; 0 leaves torch's choice")
    parser.add_argument("directories", nargs="+", type=Path, metavar="RUN_DIR")
    given = parser.parse_args(arguments)
    with StopFlag(watch_parent=watch_parent) as stop:
        return _work(given.directories, given.threads, stop)


def _work(paths: Sequence[Path], threads: int, stop: StopFlag) -> int:
    claimed: list[RunDirectory] = []
    try:
        try:
            for path in sorted(paths):  # one order everywhere: two jobs with common runs never wait for each other
                directory = claim(path, stop)
                if stop:
                    return EXIT_STOPPED
                if directory is not None:
                    claimed.append(directory)
        except Exception as error:
            sys.stderr.write(f"{error}\n" if isinstance(error, PaperbenchError) else traceback.format_exc())
            return error.exit_code if isinstance(error, PaperbenchError) else EXIT_FAILED
        return _recorded(claimed, threads, stop) if claimed else EXIT_DONE
    finally:
        for directory in claimed:
            directory.release()


def _recorded(claimed: Sequence[RunDirectory], threads: int, stop: StopFlag) -> int:
    """`_execute`, whose failures are in the run's own status and log by the time they arrive here."""
    try:
        return _execute(claimed, threads, stop)
    except PaperbenchError as error:
        return error.exit_code
    except BaseException:
        return EXIT_FAILED


def _execute(claimed: Sequence[RunDirectory], threads: int, stop: StopFlag) -> int:
    threads = _threads_before(claimed[0]) or threads
    _share_cores(threads)
    reporters: list[Reporter] = [ProgressFile(directory.path) for directory in claimed]
    if len(claimed) == 1:
        path = str(claimed[0].path)
        of_ranks = "paperbench.sweep.progress:ProgressFile", {"directory": path}
        return proceed(claimed[0], reporters[0], stop, worker_reporter=of_ranks, threads=threads).exit_code
    from paperbench.engine.stacked import execute_stacked

    return max((outcome.exit_code for outcome in execute_stacked(claimed, reporters, stop)), default=EXIT_DONE)


def _threads_before(directory: RunDirectory) -> int:
    """The threads of the session that began the run, if this machine has as many cores; 0 for a run that begins.

    Sums shared out differently round differently: a run that continues with its own number ends with the same bits.
    """
    try:
        facts = json.loads(directory.env_file.read_text(encoding="utf-8"))
        threads = int(facts["threads"]) * int(facts["processes"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    return threads if threads <= (os.cpu_count() or 1) else 0


def _share_cores(threads: int) -> None:
    """Before torch is there the environment decides, afterwards torch must be told; the run's own processes inherit it."""
    if threads <= 0:
        return
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    import torch

    torch.set_num_threads(threads)


# --- as a process of its own ------------------------------------------------------------------------------------------


def speak_to_log(directory: Path) -> None:
    """From here on stdout and stderr, a crash of the interpreter included, go to the log of the run in `directory`."""
    with suppress(OSError):
        log = os.open(directory / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        faulthandler.enable()


def end_with_parent(parent: int) -> None:
    """Asks Linux for SIGTERM when the process `parent`, which started this one, dies; ends this one if it has already."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_STOPPED)


def leave(code: int) -> None:
    """Ends the process at once: everything is written and closed, and tearing the interpreter down takes time."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end_with_parent(os.getppid())
    speak_to_log(Path(sys.argv[-1]))
    leave(main(sys.argv[1:]))
