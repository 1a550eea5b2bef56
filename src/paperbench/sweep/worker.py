"""One job of a sweep: `python -m paperbench.sweep.worker [--threads N] RUN_DIR…` does or continues the run or runs.

Every launcher starts it, as a process or by calling `main`. It reads nothing but the directories' own files, and writes
nothing but these: what a run says goes to its `log.txt`, how far it is to `.progress.json`. A run that is done already is
left as it is; one that another process works in is waited for. Several directories are trained side by side
(`engine.session.execute_stacked`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from paperbench.engine.reporter import Reporter
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag
from paperbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, PaperbenchError
from paperbench.sweep.progress import ProgressFile

_SECONDS_BETWEEN_LOOKS = 0.2


def main(arguments: Sequence[str], *, watch_parent: bool = True) -> int:
    """Does the job and returns its exit code; a failure is recorded in the directory it belongs to, and never raised.

    Without torch in the process yet, `--threads` decides its thread pools; with torch there, it sets torch's number.
    `watch_parent`: the death of the process that started this one asks for a stop, like SIGTERM.
    """
    parser = argparse.ArgumentParser(prog="paperbench.sweep.worker", description=__doc__)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each process; 0 leaves torch's choice")
    parser.add_argument("directories", nargs="+", type=Path, metavar="RUN_DIR")
    given = parser.parse_args(arguments)
    with StopFlag(watch_parent=watch_parent) as stop:
        try:
            return _work(given.directories, given.threads, stop)
        except PaperbenchError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        except Exception as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return EXIT_FAILED


def _work(paths: Sequence[Path], threads: int, stop: StopFlag) -> int:
    # In one order everywhere, so that two jobs with common runs never wait for each other.
    claimed: list[RunDirectory] = []
    try:
        for path in sorted(paths):
            directory = _claim(path, stop)
            if stop:
                return EXIT_STOPPED
            if directory is not None:
                claimed.append(directory)
        if not claimed:
            return EXIT_DONE
        _share_cores(threads)
        return _execute(claimed, threads, stop)
    finally:
        for directory in claimed:
            directory.release()


def _claim(path: Path, stop: StopFlag) -> RunDirectory | None:
    """The run, held by this process; None if it is done, and None as well if a stop is asked for while waiting."""
    from paperbench.engine.prepared import claim

    return claim(path, stop, seconds=_SECONDS_BETWEEN_LOOKS)


def _share_cores(threads: int) -> None:
    """The environment is for libraries that are loaded later and for processes that the run starts."""
    if threads <= 0:
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    import torch

    torch.set_num_threads(threads)


def _execute(claimed: Sequence[RunDirectory], threads: int, stop: StopFlag) -> int:
    reporters: list[Reporter] = [ProgressFile(directory.path) for directory in claimed]
    if len(claimed) == 1:
        from paperbench.engine.launch import proceed

        return proceed(claimed[0], reporters[0], stop, threads=threads).exit_code
    from paperbench.engine.session import execute_stacked

    outcomes = execute_stacked(claimed, reporters, stop)
    return max(outcome.exit_code for outcome in outcomes)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # everything is written and closed; tearing the interpreter down would only take time
