"""torchrun for `paperbench.engine.launch`: `python -m paperbench.engine.agent NPROC RUN_DIR`.

The same as the command `torchrun`, except that it does not outlive the process that started it, and leaves it to that
process to report a failure.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys

from paperbench.engine.launch import ENV_LAUNCHER

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Runs the workers and waits for them; 0 if all ended well."""
    nproc, run_dir = arguments
    _end_with_launcher()
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The workers record their failures in the run directory; torchrun's own account of them would only repeat it.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run.main(
            [
                "--standalone",
                "--local-addr=127.0.0.1",
                f"--nproc-per-node={nproc}",
                "--module",
                "paperbench.engine.worker",
                run_dir,
            ]
        )
    except (ChildFailedError, SignalException):
        return 1
    return 0


def _end_with_launcher() -> None:
    """On Linux, asks for SIGTERM when the launcher dies: torchrun passes it on, and the workers save and stop."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.environ.get(ENV_LAUNCHER, str(os.getppid())) != str(os.getppid()):
        sys.exit(1)  # it died before the request was made


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written and closed. torch.distributed's own threads may outlive the interpreter's teardown and would
    # then abort the process, which torchrun takes for a failure.
    os._exit(code)
