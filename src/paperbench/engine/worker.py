"""One process of a run under torchrun: `torchrun --nproc-per-node N -m paperbench.engine.worker RUN_DIR`.

Reads nothing but the directory's config.yaml. `paperbench.engine.launch` starts it this way for `nproc` > 1, and so can a
cluster's own launcher for several machines that share a file system.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from paperbench.engine import torchrun
from paperbench.engine.files import write_atomic
from paperbench.engine.reporter import Reporter, SilentReporter
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.session import execute
from paperbench.engine.signals import StopFlag
from paperbench.engine.torchrun import ENV_PIDS, ENV_REPORTER
from paperbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, PaperbenchError


def main(arguments: list[str]) -> int:
    """Do this rank's part of the run; return its exit code."""
    (run_dir,) = arguments
    with StopFlag(watch_parent=torchrun.under_torchrun()) as stop:
        launched = os.environ.get(ENV_PIDS)
        if launched:
            write_atomic(Path(launched) / str(torchrun.rank()), str(os.getpid()))  # from here on signals are handled
        try:
            directory = RunDirectory.open(run_dir)
            if not launched and torchrun.rank() == 0:
                directory.clear_rank_failure()
            outcome = execute(directory, _reporter(), stop)
        except PaperbenchError as error:
            if not launched and torchrun.rank() == 0:
                sys.stderr.write(f"{error}\n")
            return error.exit_code
        except Exception as error:
            if not launched:
                sys.stderr.write(f"{type(error).__name__}: {error}; the traceback is in {run_dir}/log.txt\n")
            return EXIT_FAILED
    # torchrun takes every code but 0 for a failure. The launcher reads in status.json that the run was stopped.
    return EXIT_DONE if launched and outcome.exit_code == EXIT_STOPPED else outcome.exit_code


def _reporter() -> Reporter:
    """Return the reporter that the launcher names, in rank 0; a silent one elsewhere."""
    wanted = os.environ.get(ENV_REPORTER, "")
    if not wanted or torchrun.rank() > 0:
        return SilentReporter()
    factory, arguments = json.loads(wanted)
    module, _, name = factory.partition(":")
    return getattr(importlib.import_module(module), name)(**arguments)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written and closed. torch.distributed's own threads may outlive the interpreter's teardown and would
    # then abort the process, which torchrun takes for a failure.
    os._exit(code)
