"""One job of a sweep: `python -m paperbench.sweeps.worker [--threads N] RUN_DIR…` starts or continues the run or runs.

Every launcher starts it as a process. It reads and writes nothing but the files of these directories: the output of a run goes
to its `log.txt`, its progress to `.progress.json`. A run that is done is left as it is; the worker waits for a run that
another process works on. Several directories are trained stacked (`engine.stacked.execute_stacked`).
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
from typing import NoReturn

from paperbench.engine.claims import claim
from paperbench.engine.launch import proceed
from paperbench.engine.processes import ON_WINDOWS
from paperbench.engine.reporter import Reporter
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import ENV_LAST_STEP, StopFlag
from paperbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, PaperbenchError
from paperbench.sweeps.progress import ProgressFile

OOM_SCORE = 500
"""Added to a run's badness: when memory runs out, the kernel is to end a run and not the sweep."""
_PR_SET_PDEATHSIG = 1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(arguments: Sequence[str], *, watch_parent: bool = True) -> int:
    """Do the job and return its exit code; a failure is recorded in the directory it belongs to, and never raised.

    `watch_parent`: the death of the process that started this one asks for a stop, like SIGTERM.
    """
    options = _parser().parse_args(arguments)
    os.environ[ENV_LAST_STEP] = str(options.last_step)
    with StopFlag(watch_parent=watch_parent) as stop:
        return _claim_and_execute(options.directories, options.threads, stop)


def directories_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the run directories that these arguments name."""
    return tuple(map(str, _parser().parse_args(arguments).directories))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paperbench.sweeps.worker")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the job; 0 leaves torch's choice")
    parser.add_argument("--last-step", type=int, default=0, help="step after which a longer training stops; 0: none")
    parser.add_argument("--parent", type=int, default=0, help="process whose death asks for a stop; 0: the parent")
    parser.add_argument("directories", nargs="+", type=Path, metavar="RUN_DIR")
    return parser


def _claim_and_execute(paths: Sequence[Path], threads: int, stop: StopFlag) -> int:
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
        return _execute_safely(claimed, threads, stop) if claimed else EXIT_DONE
    finally:
        for directory in claimed:
            directory.release()


def _execute_safely(claimed: Sequence[RunDirectory], threads: int, stop: StopFlag) -> int:
    """Return the exit code of `_execute`, whose failures stand in the run's own status and log when they arrive here."""
    try:
        return _execute(claimed, threads, stop)
    except PaperbenchError as error:
        return error.exit_code
    except BaseException:
        return EXIT_FAILED


def _execute(claimed: Sequence[RunDirectory], threads: int, stop: StopFlag) -> int:
    threads = _earlier_threads(claimed[0]) or threads
    _set_threads(threads)
    reporters: list[Reporter] = [ProgressFile(directory.path) for directory in claimed]
    if len(claimed) == 1:
        path = str(claimed[0].path)
        rank_reporter = "paperbench.sweeps.progress:ProgressFile", {"directory": path}
        return proceed(claimed[0], reporters[0], stop, worker_reporter=rank_reporter, threads=threads).exit_code
    from paperbench.engine.stacked import execute_stacked

    return max((outcome.exit_code for outcome in execute_stacked(claimed, reporters, stop)), default=EXIT_DONE)


def _earlier_threads(directory: RunDirectory) -> int:
    """Return the threads of the session that began the run, if this machine has as many cores; 0 for a run that begins.

    Sums over other threads round differently: a run that continues with its own number ends with the same bits.
    """
    try:
        facts = json.loads(directory.env_file.read_text(encoding="utf-8"))
        threads = int(facts["threads"]) * int(facts["processes"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    return threads if threads <= (os.cpu_count() or 1) else 0


def _set_threads(threads: int) -> None:
    """Set the CPU threads of torch and, through the environment, of libraries that are not loaded yet and of child processes."""
    if threads <= 0:
        return
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    import torch

    torch.set_num_threads(threads)


# --- as a process of its own ------------------------------------------------------------------------------------------


def run_process(arguments: Sequence[str], *, parent: int) -> NoReturn:
    """Do the job in this process, which was started for it by the process `parent`, and end it with the exit code."""
    _terminate_with(parent)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    _redirect_output(Path(arguments[-1]))
    code = main(arguments)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # everything is written and closed, and tearing the interpreter down takes time


def _terminate_with(parent: int) -> None:
    """Have Linux send SIGTERM to this process when `parent` dies; end it if that has happened already."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if not ON_WINDOWS and os.getppid() != parent:
        os._exit(EXIT_STOPPED)


def _redirect_output(directory: Path) -> None:
    """Send stdout and stderr, a crash of the interpreter included, to the log of the run in `directory`."""
    with suppress(OSError):
        log = os.open(directory / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        faulthandler.enable()


if __name__ == "__main__":
    run_process(sys.argv[1:], parent=_parser().parse_args().parent or os.getppid())
